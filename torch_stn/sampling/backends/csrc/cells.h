// Pixel coordinates -> the cell that each point reads: index, fraction, and how the padding rule bent the slope.
#pragma once
#include <limits>
#include <vector>

#include "sources.h"

namespace stn {

// Taps of an interpolation along one axis: `first`, ..., counted from the cell. `low` taps of padding lie before the
// image and `high` behind it; a point that is nowhere reads the cell `nowhere` along x, whose taps are all fill.
struct Nearest {
    static constexpr int taps = 1, first = 0, low = 2, high = 1, nowhere = -2, wide_low = 2;
    template <class W> static STN_INLINE void weights(W, W (&w)[1]) { w[0] = W{} + 1; }
    template <class W> static STN_INLINE void slopes(W, W (&s)[1]) { s[0] = W{}; }
};
struct Linear {
    static constexpr int taps = 2, first = 0, low = 2, high = 2, nowhere = -2, wide_low = 2;
    template <class W> static STN_INLINE void weights(W f, W (&w)[2]) {
        w[0] = 1 - f;
        w[1] = f;
    }
    template <class W> static STN_INLINE void slopes(W, W (&s)[2]) {
        s[0] = W{} - 1;
        s[1] = W{} + 1;
    }
};
struct Cubic {  // Keys, a = -0.75, as F.grid_sample
    static constexpr int taps = 4, first = -1, low = 4, high = 4, nowhere = -7, wide_low = 8;
    template <class W> static STN_INLINE W far(W x) { return ((x - 5) * x + 8) * x * W(-0.75f + W{}) + 3; }
    template <class W> static STN_INLINE W near(W x) { return (W(1.25f + W{}) * x - W(2.25f + W{})) * x * x + 1; }
    template <class W> static STN_INLINE void weights(W t, W (&w)[4]) {
        w[0] = far(W(1 + t));
        w[1] = near(t);
        w[2] = near(W(1 - t));
        w[3] = far(W(2 - t));
    }
    template <class W> static STN_INLINE W far_slope(W x) { return W(-0.75f + W{}) * ((3 * x - 10) * x + 8); }
    template <class W> static STN_INLINE W near_slope(W x) { return (W(3.75f + W{}) * x - W(4.5f + W{})) * x; }
    template <class W> static STN_INLINE void slopes(W t, W (&s)[4]) {
        s[0] = far_slope(W(1 + t));
        s[1] = near_slope(t);
        s[2] = -near_slope(W(1 - t));
        s[3] = -far_slope(W(2 - t));
    }
};

// How the memory that a sampler reads is laid out, and which pixel stands behind an index outside the image.
template <int D> struct Frame {
    int64_t n[D];            // pixels of the image along each axis
    int64_t stride[D];       // in pixels
    int64_t begin[D], end[D];  // indices that are there: the image's, or more where padding was copied around it
    const int32_t* source[D];  // by index + margin: the pixel that is read there, or -1 for the fill value
    int margin[D];
    int padding;
    bool align_corners;
};

// The table behind Frame::source.
template <class K> int margin_of(int axis) { return axis == 0 ? K::wide_low : K::low; }
inline int64_t mirrored(int64_t i, int64_t n, bool about_centres) {
    if (n == 1) return 0;
    const int64_t period = about_centres ? 2 * (n - 1) : 2 * n;
    i = ((i % period) + period) % period;
    if (about_centres) return i < n ? i : period - i;
    return i < n ? i : period - 1 - i;
}
template <class K> std::vector<int32_t> source_table(int64_t n, int axis, int padding, bool align_corners) {
    const int margin = margin_of<K>(axis);
    std::vector<int32_t> table(margin + n + K::high);
    for (int64_t p = -margin; p < n + K::high; p++) {
        int64_t from = p;
        if (p < 0 || p >= n) {
            // Linear and nearest reading bring the coordinate inside, so their taps outside belong to points nowhere.
            const bool ruled = K::taps == 4 && padding != ZEROS && p >= -K::low;
            from = !ruled ? -1 : padding == BORDER ? (p < 0 ? 0 : n - 1) : mirrored(p, n, align_corners);
        }
        table[p + margin] = (int32_t)from;
    }
    return table;
}

enum Reach : uint8_t { INSIDE, MIXED, OUTSIDE };  // of the taps of a vector of points

template <class T, int D> struct Cells {
    alignas(64) Int<T> cell[D][BLOCK];
    alignas(64) Int<T> offset[BLOCK];  // of the cell, in pixels of the frame; of no meaning unless INSIDE
    alignas(64) T fraction[D][BLOCK];
    alignas(64) T slope[D][BLOCK];  // d rule(x) / dx; only where `bent`
    Reach reach[BLOCK / Simd<T>::lanes];
    bool bent;
};

template <class T> STN_INLINE Vec<T> reflected(Vec<T> x, int64_t n, bool align_corners, Vec<T>& slope) {
    const T low = align_corners ? (T)0 : (T)-0.5, span = (T)(align_corners ? n - 1 : n);
    if (span == 0) {
        slope = Vec<T>{};
        return Vec<T>{};
    }
    const Vec<T> shifted = x - low, distance = shifted < Vec<T>{} ? -shifted : shifted;
    const Vec<T> flips = floor_of<T>(distance / span), within = distance - flips * span;
    const IVec<T> odd = (flips - 2 * floor_of<T>(flips * (T)0.5)) != Vec<T>{};
    const Vec<T> one = splat<T>(1);
    slope = ((shifted < Vec<T>{}) ^ odd) ? -one : one;
    const Vec<T> mirrored = (odd ? span - within : within) + low;
    // Far out, where floats are sparser than pixels, rounding may leave the span.
    return at_most<T>(at_least<T>(mirrored, splat<T>(low)), splat<T>(low + span));
}

// The coordinate that is read in place of x along an axis of n pixels; finite for a finite x.
template <class T, class K> STN_INLINE Vec<T> ruled(Vec<T> x, int64_t n, int padding, bool align_corners, Vec<T>& slope) {
    constexpr T before = K::taps == 4 ? -3 : -2, behind = K::taps == 4 ? 1 : 0;
    slope = splat<T>(1);
    if (padding == REFLECTION) x = reflected<T>(x, n, align_corners, slope);
    if (padding != ZEROS && K::taps < 4) {
        const Vec<T> last = splat<T>((T)(n - 1));
        slope = ((x > Vec<T>{}) & (x < last)) ? slope : Vec<T>{};
        return at_most<T>(at_least<T>(x, Vec<T>{}), last);
    }
    return at_most<T>(at_least<T>(x, splat<T>(before)), splat<T>((T)n + behind));
}

// Cells of a frame that has all its padding around it and the fill value in it, so that no rule bends a coordinate and a
// point that is nowhere needs no care: clamping takes NaN for the coordinate `before` the image.
template <class T, int D, class K> void place_simply(const Frame<D>& f, int count, const Lane<T> (&x)[D], Cells<T, D>& cells) {
    cells.bent = false;
    for (int v = 0; v < count; v += Simd<T>::lanes) {
        IVec<T> offset{};
        for (int i = 0; i < D; i++) {
            Vec<T> slope;
            const Vec<T> point = ruled<T, K>(load(&x[i][v]), f.n[i], ZEROS, f.align_corners, slope);
            const Vec<T> where = K::taps == 1 ? round_of<T>(point) : floor_of<T>(point);
            if (K::taps > 1) store(&cells.fraction[i][v], point - where);
            const IVec<T> cell = to_int<T>(where);
            offset = i == 0 ? cell : offset + cell * (Int<T>)f.stride[i];
        }
        store_int<T>(&cells.offset[v], offset);
    }
}

// `inside` of a frame with all padding around it is never asked: its points are all INSIDE.
template <class T, int D, class K>
void place(const Frame<D>& f, int count, const Lane<T> (&x)[D], bool padded, Cells<T, D>& cells) {
    if (K::taps < 4 && padded && f.padding == ZEROS) return place_simply<T, D, K>(f, count, x, cells);
    using V = Vec<T>;
    using I = IVec<T>;
    cells.bent = f.padding != ZEROS && K::taps > 1;
    // Where the image is mirrored, rounding alone would say what a point farther out reads: it counts as infinite.
    const V far = splat<T>(f.padding == REFLECTION ? (T)(1 << 30) : std::numeric_limits<T>::max());
    for (int v = 0; v < count; v += Simd<T>::lanes) {
        I finite = I{} - 1, cell[D];
        V at[D];
        for (int i = 0; i < D; i++) {
            at[i] = load(&x[i][v]);
            finite &= (at[i] <= far) & (at[i] >= -far);
        }
        const bool all_finite = !any<T>(~finite);
        for (int i = 0; i < D; i++) {
            V slope, where;
            V point = all_finite ? at[i] : (finite ? at[i] : splat<T>(i == 0 ? (T)K::nowhere : (T)0));
            point = ruled<T, K>(point, f.n[i], f.padding, f.align_corners, slope);
            if (!all_finite && i == 0) point = finite ? point : splat<T>((T)K::nowhere);
            if (K::taps == 1) {
                where = round_of<T>(point);
            } else {
                where = floor_of<T>(point);
                // A point on the last pixel belongs to the cell before it, so that no tap lies outside.
                if (K::taps == 2 && f.padding != ZEROS && f.n[i] > 1) {
                    where = at_most<T>(where, splat<T>((T)(f.n[i] - 2)));
                }
                store(&cells.fraction[i][v], point - where);
            }
            if (cells.bent) store(&cells.slope[i][v], all_finite ? slope : (finite ? slope : V{}));
            cell[i] = to_int<T>(where);
            store_int<T>(&cells.cell[i][v], cell[i]);
        }
        I offset = cell[0];
        for (int i = 1; i < D; i++) offset += cell[i] * (Int<T>)f.stride[i];
        store_int<T>(&cells.offset[v], offset);
        if (padded) continue;
        I outside{}, beyond{};
        for (int i = 0; i < D; i++) {
            const Int<T> begin = (Int<T>)f.begin[i], end = (Int<T>)f.end[i];
            outside |= (cell[i] + K::first < begin) | (cell[i] + (K::first + K::taps) > end);
            beyond |= (cell[i] + (K::first + K::taps) <= begin) | (cell[i] + K::first >= end);
        }
        Reach& reach = cells.reach[v / Simd<T>::lanes];
        reach = !any<T>(outside) ? INSIDE : MIXED;
        // Taps beyond a mirror lie inside again.
        if (reach == MIXED && !(K::taps == 4 && f.padding != ZEROS) && !any<T>(~beyond)) reach = OUTSIDE;
    }
}

// sum over taps of w_x w_y [w_z] times what `row` reads: row(values, j, k) gives the taps along x of row j, plane k.
template <class K, int D, class V, class W, class Row> STN_INLINE V blend(const W (&w)[D][K::taps], Row row) {
    V all{};
    for (int k = 0; k < (D == 3 ? K::taps : 1); k++) {
        V plane{};
        for (int j = 0; j < K::taps; j++) {
            V t[K::taps], line;
            row(t, j, k);
            line = t[0] * w[0][0];
            for (int i = 1; i < K::taps; i++) line += t[i] * w[0][i];
            plane = j == 0 ? line * w[1][0] : plane + line * w[1][j];
        }
        if (D == 2) return plane;
        all = k == 0 ? plane * w[D - 1][0] : all + plane * w[D - 1][k];
    }
    return all;
}
// The slopes of that along each axis, from the slopes s of the weights.
template <class K, int D, class V, class W, class Row>
STN_INLINE void blend_slopes(const W (&w)[D][K::taps], const W (&s)[D][K::taps], Row row, V (&out)[D]) {
    for (int i = 0; i < D; i++) out[i] = V{};
    for (int k = 0; k < (D == 3 ? K::taps : 1); k++) {
        V in_x{}, in_y{}, in_z{};
        for (int j = 0; j < K::taps; j++) {
            V t[K::taps], line, bend;
            row(t, j, k);
            line = t[0] * w[0][0];
            for (int i = 1; i < K::taps; i++) line += t[i] * w[0][i];
            if (K::taps == 2) {
                bend = t[K::taps - 1] - t[0];
            } else {
                bend = t[0] * s[0][0];
                for (int i = 1; i < K::taps; i++) bend += t[i] * s[0][i];
            }
            in_x += bend * w[1][j];
            in_y += line * s[1][j];
            if (D == 3) in_z += line * w[1][j];
        }
        if (D == 2) {
            out[0] = in_x;
            out[1] = in_y;
        } else {
            out[0] += in_x * w[D - 1][k];
            out[1] += in_y * w[D - 1][k];
            out[D - 1] += in_z * s[D - 1][k];
        }
    }
}

}  // namespace stn
