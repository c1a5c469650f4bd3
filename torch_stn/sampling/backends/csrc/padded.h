// A small plane, or a pack of `W` channels of one, copied with its padding around it: no point then reads outside.
#pragma once
#include "cells.h"

namespace stn {

template <class T, int D, class K, int W> struct Padded {
    Frame<D> frame;
    int64_t size = W;  // of the memory, in numbers
    int64_t origin = 0;

    explicit Padded(const Frame<D>& image) : frame(image) {
        int64_t stride = 1;
        for (int i = 0; i < D; i++) {
            frame.stride[i] = stride;
            origin += image.margin[i] * stride;
            stride *= image.margin[i] + image.n[i] + K::high;
        }
        origin *= W;
        size = W * stride + 64;  // vectors may be read a little beyond the last pixel
    }
    bool has_rule() const { return K::taps == 4 && frame.padding != ZEROS; }

    // f(first pixel of a row in the image, where it lies in the padded copy)
    template <class F> void rows(F f) const {
        const int64_t planes = D == 3 ? frame.n[D - 1] : 1;
        for (int64_t z = 0; z < planes; z++)
            for (int64_t y = 0; y < frame.n[1]; y++) {
                int64_t to = y * frame.stride[1];
                if (D == 3) to += z * frame.stride[D - 1];
                f((z * frame.n[1] + y) * frame.n[0], origin + to * W);
            }
    }
    // f(place of the padding, place of the pixel that stands there)
    template <class F> void padding(F f) const {
        int64_t at[3];
        for (at[2] = D == 3 ? -frame.margin[D - 1] : 0; at[2] < (D == 3 ? frame.n[D - 1] + K::high : 1); at[2]++)
            for (at[1] = -frame.margin[1]; at[1] < frame.n[1] + K::high; at[1]++)
                for (at[0] = -frame.margin[0]; at[0] < frame.n[0] + K::high; at[0]++) {
                    int64_t to = 0, from = 0;
                    bool there = true;
                    for (int i = 0; i < D; i++) {
                        const int32_t pixel = frame.source[i][at[i] + frame.margin[i]];
                        there &= pixel >= 0;
                        to += at[i] * frame.stride[i];
                        from += pixel * frame.stride[i];
                    }
                    if (there && to != from) f(origin + to * W, origin + from * W);
                }
    }
    void clear(T* memory, T value) const {
        for (int64_t i = 0; i < size; i++) memory[i] = value;
    }
    void copy_rule(T* memory) const {
        if (!has_rule()) return;
        padding([&](int64_t to, int64_t from) {
            for (int i = 0; i < W; i++) memory[to + i] = memory[from + i];
        });
    }
    // The way back: what fell on padding belongs to the pixel that stands there.
    void fold_rule(T* memory) const {
        if (!has_rule()) return;
        padding([&](int64_t to, int64_t from) {
            for (int i = 0; i < W; i++) memory[from + i] += memory[to + i];
        });
    }
};

template <class T> STN_INLINE void copy_run(const T* from, T* to, int64_t n) {
    for (int64_t i = 0; i < n; i += Simd<T>::lanes) {
        const int left = n - i < Simd<T>::lanes ? (int)(n - i) : Simd<T>::lanes;
        store_first(to + i, load_first(from + i, left), left);
    }
}
template <class T, int D, class K> void pad_plane(const Padded<T, D, K, 1>& p, const T* image, T* memory) {
    p.rows([&](int64_t from, int64_t to) { copy_run(image + from, memory + to, p.frame.n[0]); });
    p.copy_rule(memory);
}
template <class T, int D, class K> void unpad_plane(const Padded<T, D, K, 1>& p, T* memory, T* image) {
    p.fold_rule(memory);
    p.rows([&](int64_t to, int64_t from) { copy_run(memory + from, image + to, p.frame.n[0]); });
}

}  // namespace stn
