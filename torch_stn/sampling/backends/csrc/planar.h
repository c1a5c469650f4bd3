// Reading and scattering with points in the lanes of a vector: an image (C, [D,] H, W), one channel at a time.
#pragma once
#include "cells.h"

namespace stn {

// The taps of one vector of points: pixel behind each, per axis, and the weights.
template <class T, int D, class K> struct Taps {
    Vec<T> w[D][K::taps], s[D][K::taps];
    const Int<T>* offset;
    IVec<T> pixel[D][K::taps];  // pixel: of a MIXED vector only; -1 where the fill value is read
    Reach reach;

    STN_INLINE Taps(const Frame<D>& f, const Cells<T, D>& cells, int v, bool padded, bool slopes) {
        reach = padded ? INSIDE : cells.reach[v / Simd<T>::lanes];
        offset = &cells.offset[v];
        for (int i = 0; i < D; i++) {
            const Vec<T> fraction = K::taps == 1 ? Vec<T>{} : load(&cells.fraction[i][v]);
            K::weights(fraction, w[i]);
            if (slopes) K::slopes(fraction, s[i]);
            if (reach != MIXED) continue;
            const IVec<T> cell = load_int<T>(&cells.cell[i][v]);
            for (int t = 0; t < K::taps; t++) {
                const IVec<T> at = cell + (K::first + t);
                if (K::taps == 4 && f.padding != ZEROS) {
                    pixel[i][t] = look_up<T>(f.source[i] + f.margin[i], at);
                } else {
                    pixel[i][t] = (at >= (Int<T>)f.begin[i]) & (at < (Int<T>)f.end[i]) ? at : IVec<T>{} - 1;
                }
            }
        }
    }
};

// A row of taps along x, for `blend`.
template <class T, int D, class K> struct RowReader {
    const T* image;
    const Frame<D>& f;
    const Taps<T, D, K>& taps;
    T fill;

    STN_INLINE void operator()(Vec<T> (&t)[K::taps], int j, int k) const {
        if (taps.reach == INSIDE) {
            const T* p = image + (j + K::first) * f.stride[1] + (D == 3 ? (k + K::first) * f.stride[D - 1] : 0);
            if (K::taps == 1) t[0] = gather<T>(p, load_int<T>(taps.offset));
            if (K::taps >= 2) gather_pairs<T>(p + K::first, taps.offset, t[0], t[K::taps > 1 ? 1 : 0]);
            if (K::taps == 4) gather_pairs<T>(p + 1, taps.offset, t[K::taps - 2], t[K::taps - 1]);
            return;
        }
        const IVec<T> y = taps.pixel[1][j], z = D == 3 ? taps.pixel[D - 1][k] : IVec<T>{};
        const IVec<T> row = y * (Int<T>)f.stride[1] + (D == 3 ? z * (Int<T>)f.stride[D - 1] : IVec<T>{});
        if (K::taps == 2 && f.n[0] > 1) return pair(t, (y >= IVec<T>{}) & (z >= IVec<T>{}), row);
        for (int i = 0; i < K::taps; i++) {
            const IVec<T> x = taps.pixel[0][i], there = (x >= IVec<T>{}) & (y >= IVec<T>{}) & (z >= IVec<T>{});
            const Vec<T> read = gather<T>(image, there ? x + row : IVec<T>{});
            t[i] = there ? read : splat<T>(fill);
        }
    }
    // Two taps at the border: the nearest pair of pixels that is there, from which each takes its own; gathers are slow.
    STN_INLINE void pair(Vec<T> (&t)[K::taps], IVec<T> there, IVec<T> row) const {
        const IVec<T> left = taps.pixel[0][0], right = taps.pixel[0][K::taps - 1];
        const Int<T> last = (Int<T>)(f.n[0] - 2);
        const IVec<T> base = left > last ? IVec<T>{} + last : left > IVec<T>{} ? left : IVec<T>{};
        alignas(64) Int<T> at[Simd<T>::lanes];
        store_int<T>(at, base + (there ? row : IVec<T>{}));
        Vec<T> a, b;
        gather_pairs<T>(image, at, a, b);
        t[0] = there & (left >= IVec<T>{}) ? (left > last ? b : a) : splat<T>(fill);
        t[K::taps - 1] = there & (right >= IVec<T>{}) ? (right == IVec<T>{} ? a : b) : splat<T>(fill);
    }
};

// out[l] = U at the points of a block.
template <class T, int D, class K, bool PADDED>
void read_planar(const T* image, const Frame<D>& f, const Cells<T, D>& cells, int count, T fill, T* out) {
    for (int v = 0; v < count; v += Simd<T>::lanes) {
        const Taps<T, D, K> taps(f, cells, v, PADDED, false);
        Vec<T> value = splat<T>(fill);
        if (taps.reach != OUTSIDE) value = blend<K, D, Vec<T>>(taps.w, RowReader<T, D, K>{image, f, taps, fill});
        store_first(out + v, value, count - v);
    }
}

// Adds to `slopes` the image gradient's share of each point: g * dU/dx in pixels, before the padding rule.
template <class T, int D, class K, bool PADDED>
void read_slopes_planar(const T* image, const Frame<D>& f, const Cells<T, D>& cells, int count, T fill, const T* g,
                        bool add, Lane<T> (&slopes)[D]) {
    for (int v = 0; v < count; v += Simd<T>::lanes) {
        const Taps<T, D, K> taps(f, cells, v, PADDED, true);
        Vec<T> s[D] = {};
        if (K::taps > 1 && taps.reach != OUTSIDE) {
            const Vec<T> weight = load_first(g + v, count - v);
            blend_slopes<K, D>(taps.w, taps.s, RowReader<T, D, K>{image, f, taps, fill}, s);
            // A lane behind the last point holds any cell of the block, and its weight is 0; but 0 * inf is not.
            for (int i = 0; i < D; i++) s[i] = count - v < Simd<T>::lanes ? first<T>(s[i] * weight, count - v) : s[i] * weight;
        }
        for (int i = 0; i < D; i++) store(&slopes[i][v], add ? load(&slopes[i][v]) + s[i] : s[i]);
    }
}

// grad[taps] += g * weights. Each pixel's sum is in one order: vector after vector, and in each first every fourth point,
// for neighbours mostly share a pixel, and one's addition would wait for the other's.
constexpr int APART = 4;
template <class T, int D, class K, bool PADDED>
void scatter_planar(const Frame<D>& f, const Cells<T, D>& cells, int count, const T* g, T* grad) {
    constexpr int L = Simd<T>::lanes, planes = D == 3 ? K::taps : 1;
    alignas(64) T share[planes][K::taps][K::taps][L];
    alignas(64) Int<T> pixel[D][K::taps][L];
    for (int v = 0; v < count; v += L) {
        const Taps<T, D, K> taps(f, cells, v, PADDED, false);
        if (taps.reach == OUTSIDE) continue;
        const int lanes = count - v < L ? count - v : L;
        const auto each = [lanes](auto add) {
            for (int begin = 0; begin < APART; begin++)
                for (int l = begin; l < lanes; l += APART) add(l);
        };
        const Vec<T> weight = load_first(g + v, count - v);
        for (int k = 0; k < planes; k++)
            for (int j = 0; j < K::taps; j++) {
                const Vec<T> row = (D == 3 ? weight * taps.w[D - 1][k] : weight) * taps.w[1][j];
                for (int i = 0; i < K::taps; i++) store(share[k][j][i], row * taps.w[0][i]);
            }
        if (taps.reach == INSIDE) {
            each([&](int l) {
                for (int k = 0; k < planes; k++)
                    for (int j = 0; j < K::taps; j++) {
                        T* to = grad + taps.offset[l] + (j + K::first) * f.stride[1] + K::first;
                        if (D == 3) to += (k + K::first) * f.stride[D - 1];
                        for (int i = 0; i < K::taps; i++) to[i] += share[k][j][i][l];
                    }
            });
            continue;
        }
        for (int i = 0; i < D; i++)
            for (int t = 0; t < K::taps; t++) store_int<T>(pixel[i][t], taps.pixel[i][t]);
        each([&](int l) {
            for (int k = 0; k < planes; k++)
                for (int j = 0; j < K::taps; j++) {
                    const int64_t y = pixel[1][j][l], z = D == 3 ? pixel[D - 1][k][l] : 0;
                    if (y < 0 || z < 0) continue;
                    T* to = grad + y * f.stride[1] + (D == 3 ? z * f.stride[D - 1] : 0);
                    for (int i = 0; i < K::taps; i++)
                        if (pixel[0][i][l] >= 0) to[pixel[0][i][l]] += share[k][j][i][l];
                }
        });
    }
}

}  // namespace stn
