// Reading and scattering with channels in the lanes of a vector: a pack of them lies side by side for every pixel.
#pragma once
#include "padded.h"

namespace stn {

// Channels [begin, begin + count) of an image or result: where the first number lies, and the steps from there.
template <class T> struct Channels {
    T* first;
    int64_t channel, pixel;  // steps: one of them is 1
    int count;

    Channels(const void* tensor, int64_t n, int64_t pixels, int64_t channels, int64_t begin, bool last) {
        channel = last ? 1 : pixels;
        pixel = last ? channels : 1;
        first = (T*)tensor + n * pixels * channels + begin * channel;
        count = (int)(channels - begin < Simd<T>::lanes ? channels - begin : Simd<T>::lanes);
    }
    // r[i] = the channels of pixel at + i, for i < n; lanes without a channel are 0.
    STN_INLINE void read(int64_t at, int n, Vec<T>* r) const {
        const T* p = first + at * pixel;
        if (channel == 1) {
            for (int i = 0; i < n; i++) r[i] = load_first(p + i * pixel, count);
            return;
        }
        for (int i = 0; i < Simd<T>::lanes; i++) r[i] = i < count ? load_first(p + i * channel, n) : Vec<T>{};
        transpose<T>(r);
    }
    // The inverse; r is used up.
    STN_INLINE void write(int64_t at, int n, Vec<T>* r) const {
        T* p = first + at * pixel;
        if (channel == 1) {
            for (int i = 0; i < n; i++) store_first(p + i * pixel, r[i], count);
            return;
        }
        transpose<T>(r);
        for (int i = 0; i < count; i++) store_first(p + i * channel, r[i], n);
    }
};

template <class T, int D, class K> using Pack = Padded<T, D, K, Simd<T>::lanes>;

template <class T, int D, class K> void pad_pack(const Pack<T, D, K>& p, const Channels<T>& image, T* memory) {
    constexpr int L = Simd<T>::lanes;
    const int64_t width = p.frame.n[0];
    p.rows([&](int64_t from, int64_t to) {
        for (int64_t x = 0; x < width; x += L) {
            const int n = (int)(width - x < L ? width - x : L);
            Vec<T> r[L];
            image.read(from + x, n, r);
            for (int i = 0; i < n; i++) store(memory + to + (x + i) * L, r[i]);
        }
    });
    p.copy_rule(memory);
}
template <class T, int D, class K> void unpad_pack(const Pack<T, D, K>& p, T* memory, const Channels<T>& image) {
    constexpr int L = Simd<T>::lanes;
    const int64_t width = p.frame.n[0];
    p.fold_rule(memory);
    p.rows([&](int64_t to, int64_t from) {
        for (int64_t x = 0; x < width; x += L) {
            const int n = (int)(width - x < L ? width - x : L);
            Vec<T> r[L];
            for (int i = 0; i < L; i++) r[i] = i < n ? load(memory + from + (x + i) * L) : Vec<T>{};
            image.write(to + x, n, r);
        }
    });
}

// Weights of one point, as numbers that every channel shares.
template <class T, int D, class K> STN_INLINE void point_weights(const Cells<T, D>& cells, int l, T (&w)[D][K::taps]) {
    for (int i = 0; i < D; i++) K::template weights<T>(K::taps == 1 ? (T)0 : cells.fraction[i][l], w[i]);
}
template <class T, int D, class K> struct PackRow {
    const T* cell;
    const Frame<D>& f;
    STN_INLINE void operator()(Vec<T> (&t)[K::taps], int j, int k) const {
        constexpr int L = Simd<T>::lanes;
        const T* p = cell + (j + K::first) * f.stride[1] * L + K::first * L;
        if (D == 3) p += (k + K::first) * f.stride[D - 1] * L;
        for (int i = 0; i < K::taps; i++) t[i] = load(p + i * L);
    }
};

template <class T, int D, class K>
void read_pack(const T* pack, const Frame<D>& f, const Cells<T, D>& cells, int count, int64_t at, const Channels<T>& out) {
    constexpr int L = Simd<T>::lanes;
    for (int l = 0; l < count; l += L) {
        const int n = count - l < L ? count - l : L;
        Vec<T> r[L];
        for (int i = 0; i < n; i++) {
            T w[D][K::taps];
            point_weights<T, D, K>(cells, l + i, w);
            r[i] = blend<K, D, Vec<T>>(w, PackRow<T, D, K>{pack + (int64_t)cells.offset[l + i] * L, f});
        }
        for (int i = n; i < L; i++) r[i] = Vec<T>{};
        out.write(at + l, n, r);
    }
}

// Scatters g into `grad` (null: not wanted) and stores the slopes of every point (null: not wanted).
template <class T, int D, class K>
void pull_pack(const T* pack, T* grad, const Frame<D>& f, const Cells<T, D>& cells, int count, int64_t at,
               const Channels<T>& g, Lane<T>* slopes) {
    constexpr int L = Simd<T>::lanes;
    for (int l = 0; l < count; l += L) {
        const int n = count - l < L ? count - l : L;
        Vec<T> r[L], bends[D][L];
        g.read(at + l, n, r);
        for (int p = 0; p < n; p++) {
            const int64_t offset = (int64_t)cells.offset[l + p] * L;
            T w[D][K::taps];
            point_weights<T, D, K>(cells, l + p, w);
            if (slopes) {
                T s[D][K::taps];
                Vec<T> bend[D];
                for (int i = 0; i < D; i++) K::template slopes<T>(K::taps == 1 ? (T)0 : cells.fraction[i][l + p], s[i]);
                blend_slopes<K, D>(w, s, PackRow<T, D, K>{pack + offset, f}, bend);
                for (int i = 0; i < D; i++) bends[i][p] = bend[i] * r[p];
            }
            if (!grad) continue;
            for (int k = 0; k < (D == 3 ? K::taps : 1); k++) {
                const Vec<T> plane = D == 3 ? r[p] * w[D - 1][k] : r[p];
                for (int j = 0; j < K::taps; j++) {
                    const Vec<T> row = plane * w[1][j];
                    T* to = grad + offset + ((j + K::first) * f.stride[1] + K::first) * L;
                    if (D == 3) to += (k + K::first) * f.stride[D - 1] * L;
                    for (int i = 0; i < K::taps; i++) store(to + i * L, load(to + i * L) + row * w[0][i]);
                }
            }
        }
        if (!slopes) continue;
        for (int i = 0; i < D; i++) {
            for (int p = n; p < L; p++) bends[i][p] = Vec<T>{};
            store(&slopes[i][l], sums_of_rows<T>(bends[i]));
        }
    }
}

}  // namespace stn
