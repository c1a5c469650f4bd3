// The image gradient of linear reading in 2-D: every point adds its four shares, side by side, to its cell; a second pass
// adds to each pixel the shares of the four cells around it. One aligned addition a point instead of four that overlap.
#pragma once
#include "planar.h"

namespace stn {

constexpr int64_t QUAD_CELLS = 32768;  // of a patch: beyond, clearing and folding it costs more than it saves

// Cells x in [x0, x1), y in [y0, y1), with one empty cell all around, and one for points that are another slab's.
template <class T> struct QuadPatch {
    int64_t x0, x1, y0, y1;
    int64_t width() const { return x1 - x0 + 2; }
    int64_t cells() const { return width() * (y1 - y0 + 2); }
    int64_t size() const { return 4 * (cells() + 1); }
    void clear(T* quads) const { memset(quads, 0, size() * sizeof(T)); }

    // Grows to hold the cells of a block.
    void embrace(const Cells<T, 2>& cells_of, int count) {
        for (int v = 0; v < count; v += Simd<T>::lanes) {
            if (cells_of.reach[v / Simd<T>::lanes] == OUTSIDE) continue;
            for (int l = v; l < count && l < v + Simd<T>::lanes; l++) {
                const int64_t x = cells_of.cell[0][l], y = cells_of.cell[1][l];
                x0 = x < x0 ? x : x0;
                x1 = x >= x1 ? x + 1 : x1;
                y0 = y < y0 ? y : y0;
                y1 = y >= y1 ? y + 1 : y1;
            }
        }
    }
    // Keeps what reaches the rows [begin, end); may leave nothing.
    void clip(int64_t begin, int64_t end) {
        y0 = y0 > begin - 1 ? y0 : begin - 1;
        y1 = y1 < end ? y1 : end;
        if (x1 <= x0 || y1 <= y0) x0 = x1 = y0 = y1 = 0;
    }

    void scatter(const Cells<T, 2>& cells_of, int count, const T* g, T* quads) const {
        constexpr int L = Simd<T>::lanes;
        using I = IVec<T>;
        alignas(64) T four[4 * L];
        alignas(64) Int<T> at[L];
        const Int<T> spare = (Int<T>)cells();
        for (int v = 0; v < count; v += L) {
            const I x = load_int<T>(&cells_of.cell[0][v]) - (Int<T>)x0, y = load_int<T>(&cells_of.cell[1][v]) - (Int<T>)y0;
            const I mine = (x >= I{}) & (x < (Int<T>)(x1 - x0)) & (y >= I{}) & (y < (Int<T>)(y1 - y0));
            store_int<T>(at, mine ? (y + 1) * (Int<T>)width() + x + 1 : I{} + spare);
            const Vec<T> weight = load_first(g + v, count - v);
            const Vec<T> fx = load(&cells_of.fraction[0][v]), fy = load(&cells_of.fraction[1][v]);
            const Vec<T> below = weight * fy, above = weight * (1 - fy);
            interleave4<T>(above * (1 - fx), above * fx, below * (1 - fx), below * fx, four);
            const int lanes = count - v < L ? count - v : L;
            for (int l = 0; l < lanes; l++) {
                typename Simd<T>::Quad sum, share;
                memcpy(&sum, quads + 4 * (int64_t)at[l], sizeof sum);
                memcpy(&share, four + quad_of<T>(l), sizeof share);
                sum += share;
                memcpy(quads + 4 * (int64_t)at[l], &sum, sizeof sum);
            }
        }
    }
    // grad[pixel] += shares of the cells around it, for the rows [begin, end) of an image of `width_` by `height`.
    void fold(const T* quads, int64_t image_width, int64_t begin, int64_t end, T* grad) const {
        const int64_t xa = x0 > 0 ? x0 : 0, xb = x1 + 1 < image_width ? x1 + 1 : image_width;
        const int64_t ya = y0 > begin ? y0 : begin, yb = y1 + 1 < end ? y1 + 1 : end;
        for (int64_t y = ya; y < yb; y++) {
            const T* here = quads + 4 * ((y - y0 + 1) * width() + xa - x0 + 1);
            fold_row(here, here - 4 * width(), grad + y * image_width + xa, xb - xa);
        }
    }

  private:
    static STN_INLINE void fold_row(const T* here, const T* above, T* grad, int64_t n) {
        for (int64_t x = 0; x < n; x++)
            grad[x] += (here[4 * x] + here[4 * x - 3]) + (above[4 * x + 2] + above[4 * x - 1]);
    }
};

#if defined(__SSE4_1__)
template <> STN_INLINE void QuadPatch<float>::fold_row(const float* here, const float* above, float* grad, int64_t n) {
    // Column c of the four quads at p.
    const auto columns = [](const float* p, __m128& low, __m128& high) {
        const __m128 a = _mm_loadu_ps(p), b = _mm_loadu_ps(p + 4), c = _mm_loadu_ps(p + 8), d = _mm_loadu_ps(p + 12);
        low = _mm_movelh_ps(_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));    // shares 0
        high = _mm_movehl_ps(_mm_unpacklo_ps(c, d), _mm_unpacklo_ps(a, b));   // shares 1
    };
    const auto columns_high = [](const float* p, __m128& low, __m128& high) {
        const __m128 a = _mm_loadu_ps(p), b = _mm_loadu_ps(p + 4), c = _mm_loadu_ps(p + 8), d = _mm_loadu_ps(p + 12);
        low = _mm_movelh_ps(_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));    // shares 2
        high = _mm_movehl_ps(_mm_unpackhi_ps(c, d), _mm_unpackhi_ps(a, b));   // shares 3
    };
    int64_t x = 0;
    for (; x + 4 <= n; x += 4) {
        __m128 s0, s1, s2, s3, unused;
        columns(here + 4 * x, s0, unused);
        columns(here + 4 * x - 4, unused, s1);
        columns_high(above + 4 * x, s2, unused);
        columns_high(above + 4 * x - 4, unused, s3);
        _mm_storeu_ps(grad + x, _mm_add_ps(_mm_loadu_ps(grad + x), _mm_add_ps(_mm_add_ps(s0, s1), _mm_add_ps(s2, s3))));
    }
    for (; x < n; x++) grad[x] += (here[4 * x] + here[4 * x - 3]) + (above[4 * x + 2] + above[4 * x - 1]);
}
#endif

}  // namespace stn
