// One call of the library: what to do and where the tensors lie. Axes in the order x, y[, z].
#pragma once
#include <cstdint>

namespace stn {

constexpr int BLOCK = 256;        // output pixels whose coordinates are alive at a time: a few KB, they stay in L1
constexpr double W_EPS = 1e-6;    // a homography point with w <= W_EPS is outside the image (torch_stn/lowered.py)
constexpr int64_t HUGE_BYTES = 4 << 20;  // results from here on are given huge pages: half the page faults' time

enum Interpolation { NEAREST, LINEAR, CUBIC };
enum Padding { ZEROS, BORDER, REFLECTION };
enum Form { AFFINE, PROJECTIVE, BASIS, FIELD, POINTS };

// Mirrored, field by field, by LAYOUT in torch_stn/sampling/backends/cpu.py.
struct Call {
    int64_t dims, wide, interpolation, padding, align_corners, form, threads;  // wide: float64
    int64_t images, maps, channels, functions;                                 // n and m: equal, or one of them 1
    int64_t in[3], out[3];
    int64_t channels_last;           // of image, result and their gradients
    int64_t source_strides[3];       // of a field or points: sample, point, axis
    int64_t source_grad_strides[3];  // of their gradient
    int64_t normalized;              // points in [-1, 1], not pixels
    const void *image, *source, *basis, *grad_result;  // source: matrix, coefficients, field or points; basis (K, L)
    void *result, *grad_image, *grad_source;           // null: not wanted
    double fill;

    int64_t pairs() const { return images == 0 || maps == 0 ? 0 : (images > maps ? images : maps); }
    int64_t image_of(int64_t pair) const { return images == 1 ? 0 : pair; }
    int64_t map_of(int64_t pair) const { return maps == 1 ? 0 : pair; }
    int64_t pixels() const { return dims == 2 ? in[0] * in[1] : in[0] * in[1] * in[2]; }
    int64_t points() const { return dims == 2 ? out[0] * out[1] : out[0] * out[1] * out[2]; }
    bool small_source() const { return form <= BASIS; }  // a few numbers a sample, not one a point
    int64_t source_size() const {
        return form == AFFINE ? dims * (dims + 1) : form == PROJECTIVE ? (dims + 1) * (dims + 1) : functions * dims;
    }
};

}  // namespace stn
