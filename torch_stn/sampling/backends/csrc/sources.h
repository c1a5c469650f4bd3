// Where output points read: a lowered map -> pixel coordinates of a block of points, and the way back for gradients.
#pragma once
#include <type_traits>

#include "call.h"
#include "simd.h"

namespace stn {

// One number a point of a block; as long as the last whole vector may write beyond it.
template <class T> struct alignas(64) Lane {
    T at[BLOCK + 64 / sizeof(T)];
    T& operator[](int i) { return at[i]; }
    const T& operator[](int i) const { return at[i]; }
};

template <class T, int D> class Sources {
  public:
    explicit Sources(const Call& call) : c(call) {
        for (int i = 0; i < D; i++) {
            double n = c.in[i], w = c.out[i];
            half[i] = c.align_corners ? (n - 1) / 2 : n / 2;
            centre[i] = (n - 1) / 2;
            // Normalised: unit * index + origin. Where the identity reads, in pixels: step * index + start, which are
            // exactly 1 and 0 for an output of the input's size.
            double span = c.align_corners ? (w > 1 ? w - 1 : 1) : w;
            unit[i] = 2 / span;
            origin[i] = -(w - 1) / span;
            if (!c.align_corners) {
                step[i] = n / w;
                start[i] = 0.5 * step[i] - 0.5;
            } else {
                step[i] = w > 1 ? (n - 1) / (w - 1) : 1;
                start[i] = w > 1 ? 0 : (n - 1) / 2;
            }
        }
    }

    void choose(int64_t map) {
        const int64_t stride = c.small_source() ? c.source_size() : c.source_strides[0];
        source = (const T*)c.source + map * stride;
        if (c.form > PROJECTIVE) return;
        const int rows = c.form == PROJECTIVE ? D + 1 : D;
        for (int r = 0; r < rows; r++)
            for (int q = 0; q <= D; q++) delta[r][q] = (double)source[r * (D + 1) + q] - (r == q ? 1 : 0);
        for (int i = 0; i < D; i++) {  // in pixels, of indices: displacement and base in one
            affine[i][D] = start[i] + half[i] * delta[i][D];
            for (int q = 0; q < D; q++) {
                affine[i][q] = half[i] * delta[i][q] * unit[q] + (q == i ? step[i] : 0);
                affine[i][D] += half[i] * delta[i][q] * origin[q];
            }
        }
    }

    // Pixel coordinates of the points [first, first + count).
    void locate(int64_t first, int count, Lane<T> (&x)[D]) const {
        switch (c.form) {
            case AFFINE: return locate_affine(first, count, x);
            case PROJECTIVE: return locate_projective(first, count, x);
            case BASIS: return locate_basis(first, count, x);
            default: return locate_given(first, count, x);
        }
    }

    // Adds to `sums` what pixel gradients g mean for the matrix or the coefficients. g is 0 from `count` to a whole vector.
    void pull(int64_t first, int count, const Lane<T> (&g)[D], double* sums) const {
        switch (c.form) {
            case AFFINE: return pull_affine(first, count, g, sums);
            case PROJECTIVE: return pull_projective(first, count, g, sums);
            default: return pull_basis(first, count, g, sums);
        }
    }

    // The same for a field or points: each has its own gradient. `add` where several images share the map.
    void pull_given(int64_t map, int64_t first, int count, const Lane<T> (&g)[D], bool add) const {
        T* out = (T*)c.grad_source + map * c.source_grad_strides[0] + first * c.source_grad_strides[1];
        for (int i = 0; i < D; i++, out += c.source_grad_strides[2]) {
            const T scale = given_scale(i);
            constant_stride(c.source_grad_strides[1], [&](auto stride) {
                if (add)
                    for (int l = 0; l < count; l++) out[l * stride] += scale * g[i][l];
                else
                    for (int l = 0; l < count; l++) out[l * stride] = scale * g[i][l];
            });
        }
    }

  private:
    static constexpr int L = Simd<T>::lanes;
    using V = Vec<T>;
    const Call& c;
    const T* source = nullptr;
    double half[D], centre[D], unit[D], origin[D], step[D], start[D];
    double delta[D + 1][D + 1], affine[D][D + 1];

    // f(position in the block, how many, index along each axis of the first) for every piece of a row.
    template <class F> void rows(int64_t first, int count, F f) const {
        int64_t row = first / c.out[0], j = first % c.out[0];
        for (int done = 0; done < count; row++, j = 0) {
            const int run = (int)(c.out[0] - j < count - done ? c.out[0] - j : count - done);
            int64_t index[3] = {j, row, 0};
            if (D == 3) {
                index[1] = row % c.out[1];
                index[2] = row / c.out[1];
            }
            f(done, run, index);
            done += run;
        }
    }
    static V ramp(double begin, double slope, int v) {
        return splat<T>((T)begin) + (to_real<T>(counting<T>()) + (T)v) * (T)slope;
    }

    void locate_affine(int64_t first, int count, Lane<T> (&x)[D]) const {
        rows(first, count, [&](int done, int run, const int64_t* index) {
            for (int i = 0; i < D; i++) {
                double begin = affine[i][D];
                for (int q = 0; q < D; q++) begin += affine[i][q] * index[q];
                for (int v = 0; v < run; v += L) store(&x[i][done + v], ramp(begin, affine[i][0], v));
            }
        });
    }

    // The rows of a homography minus the identity, applied to normalised points: linear along a row of pixels.
    struct Homography {
        double begin[D + 1], slope[D + 1], unit[D];  // unit: the normalised point where the row begins
    };
    Homography along(const int64_t* index) const {
        Homography h;
        for (int q = 0; q < D; q++) h.unit[q] = unit[q] * index[q] + origin[q];
        for (int r = 0; r <= D; r++) {
            h.begin[r] = delta[r][D];
            for (int q = 0; q < D; q++) h.begin[r] += delta[r][q] * h.unit[q];
            h.slope[r] = delta[r][0] * unit[0];
        }
        return h;
    }
    // Normalised displacement; `front`: the point lies before the camera, elsewhere the reciprocal is 0.
    V displaced(const Homography& h, int v, V (&xy)[D], V (&moved)[D], IVec<T>& front) const {
        const V less = ramp(h.begin[D], h.slope[D], v), w = less + (T)1;
        front = w > splat<T>((T)W_EPS);
        const V reciprocal = front ? (T)1 / w : V{};
        for (int i = 0; i < D; i++) {
            xy[i] = i == 0 ? ramp(h.unit[0], unit[0], v) : splat<T>((T)h.unit[i]);
            moved[i] = (ramp(h.begin[i], h.slope[i], v) - xy[i] * less) * reciprocal;
        }
        return reciprocal;
    }
    void locate_projective(int64_t first, int count, Lane<T> (&x)[D]) const {
        rows(first, count, [&](int done, int run, const int64_t* index) {
            const Homography h = along(index);
            for (int v = 0; v < run; v += L) {
                V xy[D], moved[D];
                IVec<T> front;
                displaced(h, v, xy, moved, front);
                for (int i = 0; i < D; i++) {
                    const V base = i == 0 ? ramp(start[0] + step[0] * index[0], step[0], v)
                                          : splat<T>((T)(start[i] + step[i] * index[i]));
                    const V point = base + (T)half[i] * moved[i];
                    store(&x[i][done + v], front ? point : splat<T>((T)NAN));
                }
            }
        });
    }

    void add_base(int64_t first, int count, Lane<T> (&x)[D]) const {
        rows(first, count, [&](int done, int run, const int64_t* index) {
            for (int i = 0; i < D; i++)
                for (int v = 0; v < run; v += L) {
                    const V base = i == 0 ? ramp(start[0] + step[0] * index[0], step[0], v)
                                          : splat<T>((T)(start[i] + step[i] * index[i]));
                    // Only this row's: what lies behind belongs to the next one.
                    store(&x[i][done + v], load(&x[i][done + v]) + first_of(base, run - v));
                }
        });
    }
    static V first_of(V v, int n) { return n >= L ? v : stn::first<T>(v, n); }

    void locate_basis(int64_t first, int count, Lane<T> (&x)[D]) const {
        const int64_t points = c.points();
        const T* basis = (const T*)c.basis + first;
        for (int v = 0; v < count; v += L) {
            V moved[D] = {};
            for (int64_t k = 0; k < c.functions; k++) {
                const V b = load_first(basis + k * points + v, count - v);
                for (int i = 0; i < D; i++) moved[i] += b * source[k * D + i];
            }
            for (int i = 0; i < D; i++) store(&x[i][v], (T)half[i] * moved[i]);
        }
        add_base(first, count, x);
    }

    // The two strides of points one after the other, planar and interleaved, as constants: loops over them are vectors.
    template <class F> static void constant_stride(int64_t stride, F f) {
        if (stride == 1) return f(std::integral_constant<int64_t, 1>{});
        if (stride == D) return f(std::integral_constant<int64_t, D>{});
        f(stride);
    }
    T given_scale(int i) const { return (T)(c.form == POINTS && !c.normalized ? 1 : half[i]); }
    void locate_given(int64_t first, int count, Lane<T> (&x)[D]) const {
        const T* from = source + first * c.source_strides[1];
        for (int i = 0; i < D; i++, from += c.source_strides[2]) {
            const T scale = given_scale(i), shift = (T)(c.form == POINTS && c.normalized ? centre[i] : 0);
            constant_stride(c.source_strides[1], [&](auto stride) {
                for (int l = 0; l < count; l++) x[i][l] = from[l * stride] * scale + shift;
            });
            for (int l = count; l % L; l++) x[i][l] = 0;
        }
        if (c.form == FIELD) add_base(first, count, x);
    }

    // Sums over a block of g and of g times x, y[, z]: kept in lanes to the end, for adding up lanes is dear.
    struct Moments {
        V along[D + 1] = {};
        STN_INLINE void add(V g, V x, const double* unit) {
            along[0] += g * x;
            for (int q = 1; q < D; q++) along[q] += g * (T)unit[q];
            along[D] += g;
        }
        void collect(double scale, double* row) const {
            for (int q = 0; q <= D; q++) row[q] += scale * sum<T>(along[q]);
        }
    };
    void pull_affine(int64_t first, int count, const Lane<T> (&g)[D], double* sums) const {
        Moments moments[D];
        rows(first, count, [&](int done, int run, const int64_t* index) {
            double at[D];
            for (int q = 0; q < D; q++) at[q] = unit[q] * index[q] + origin[q];
            for (int v = 0; v < run; v += L) {
                const V x = ramp(at[0], unit[0], v);
                for (int i = 0; i < D; i++) moments[i].add(first_of(load(&g[i][done + v]), run - v), x, at);
            }
        });
        for (int i = 0; i < D; i++) moments[i].collect(half[i], sums + i * (D + 1));
    }
    void pull_projective(int64_t first, int count, const Lane<T> (&g)[D], double* sums) const {
        Moments moments[D + 1];
        rows(first, count, [&](int done, int run, const int64_t* index) {
            const Homography h = along(index);
            for (int v = 0; v < run; v += L) {
                V xy[D], moved[D], last{};
                IVec<T> front;
                const V reciprocal = displaced(h, v, xy, moved, front);
                for (int i = 0; i < D; i++) {
                    const V pixel = first_of(load(&g[i][done + v]), run - v);
                    // A point that is nowhere has no gradient, whatever 0 * inf would say.
                    const IVec<T> felt = front & (pixel != V{});
                    const V pull = felt ? pixel * (T)half[i] * reciprocal : V{};
                    moments[i].add(pull, xy[0], h.unit);
                    last -= felt ? pull * (xy[i] + moved[i]) : V{};
                }
                moments[D].add(last, xy[0], h.unit);
            }
        });
        for (int r = 0; r <= D; r++) moments[r].collect(1, sums + r * (D + 1));
    }
    void pull_basis(int64_t first, int count, const Lane<T> (&g)[D], double* sums) const {
        const int64_t points = c.points();
        const T* basis = (const T*)c.basis + first;
        for (int64_t k = 0; k < c.functions; k++) {
            V all[D] = {};
            for (int v = 0; v < count; v += L) {
                const V b = load_first(basis + k * points + v, count - v);
                for (int i = 0; i < D; i++) all[i] += b * load(&g[i][v]);
            }
            for (int i = 0; i < D; i++) sums[k * D + i] += half[i] * sum<T>(all[i]);
        }
    }
};

}  // namespace stn
