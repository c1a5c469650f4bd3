// Vectors of the native width of the instruction set this file is compiled for. Everything is written with the vector
// extensions that GCC and Clang share; intrinsics stand only where those extensions compile badly, float32 on x86.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__SSE4_1__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define STN_BYTES 64
#elif defined(__AVX2__)
#define STN_BYTES 32
#else
#define STN_BYTES 16
#endif
#define STN_INLINE inline __attribute__((always_inline))

namespace stn {

template <class T> struct Simd;
template <> struct Simd<float> {
    typedef float V __attribute__((vector_size(STN_BYTES)));
    typedef int32_t I __attribute__((vector_size(STN_BYTES)));
    using Int = int32_t;
    static constexpr int lanes = STN_BYTES / 4;
};
template <> struct Simd<double> {
    typedef double V __attribute__((vector_size(STN_BYTES)));
    typedef int64_t I __attribute__((vector_size(STN_BYTES)));
    using Int = int64_t;
    static constexpr int lanes = STN_BYTES / 8;
};
template <class T> using Vec = typename Simd<T>::V;
template <class T> using IVec = typename Simd<T>::I;
template <class T> using Int = typename Simd<T>::Int;

template <class T> STN_INLINE Vec<T> splat(T a) { return Vec<T>{} + a; }
template <class T> STN_INLINE Vec<T> load(const T* p) {
    Vec<T> v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class T> STN_INLINE IVec<T> load_int(const Int<T>* p) {
    IVec<T> v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class T> STN_INLINE void store(T* p, Vec<T> v) { memcpy(p, &v, sizeof v); }
template <class T> STN_INLINE void store_int(Int<T>* p, IVec<T> v) { memcpy(p, &v, sizeof v); }
template <class T> STN_INLINE IVec<T> counting() {
    IVec<T> v;
    for (int i = 0; i < Simd<T>::lanes; i++) v[i] = i;
    return v;
}
template <class T> STN_INLINE Vec<T> to_real(IVec<T> i) { return __builtin_convertvector(i, Vec<T>); }
template <class T> STN_INLINE IVec<T> to_int(Vec<T> v) { return __builtin_convertvector(v, IVec<T>); }
template <class T> STN_INLINE Vec<T> at_least(Vec<T> a, Vec<T> b) { return a > b ? a : b; }  // b where a is NaN
template <class T> STN_INLINE Vec<T> at_most(Vec<T> a, Vec<T> b) { return a < b ? a : b; }
template <class T> STN_INLINE bool any(IVec<T> mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#elif defined(__SSE4_1__)
    return !_mm_testz_si128((__m128i)mask, (__m128i)mask);
#else
    Int<T> all = 0;
    for (int i = 0; i < Simd<T>::lanes; i++) all |= mask[i];
    return all != 0;
#endif
}
template <class T> STN_INLINE double sum(Vec<T> v) {
    double s = 0;
    for (int i = 0; i < Simd<T>::lanes; i++) s += v[i];
    return s;
}

// The first n lanes; the others are 0, and are not touched in memory.
template <class T> STN_INLINE Vec<T> load_first(const T* p, int n) {
    if (n >= Simd<T>::lanes) return load(p);
    Vec<T> v{};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
}
template <class T> STN_INLINE void store_first(T* p, Vec<T> v, int n) {
    if (n >= Simd<T>::lanes) return store(p, v);
    for (int i = 0; i < n; i++) p[i] = v[i];
}
template <class T> STN_INLINE Vec<T> first(Vec<T> v, int n) {
    return counting<T>() < IVec<T>{} + (Int<T>)n ? v : Vec<T>{};
}

template <class T> STN_INLINE Vec<T> floor_of(Vec<T> v) {
    for (int i = 0; i < Simd<T>::lanes; i++) v[i] = std::floor(v[i]);
    return v;
}
template <class T> STN_INLINE Vec<T> round_of(Vec<T> v) {  // halves to even
    for (int i = 0; i < Simd<T>::lanes; i++) v[i] = std::nearbyint(v[i]);
    return v;
}
template <class T> STN_INLINE Vec<T> gather(const T* p, IVec<T> at) {
    Vec<T> v;
    for (int i = 0; i < Simd<T>::lanes; i++) v[i] = p[at[i]];
    return v;
}
// p[at] and p[at + 1]; `at` in memory, from where every lane is loaded on its own.
template <class T> STN_INLINE void gather_pairs(const T* p, const Int<T>* at, Vec<T>& a, Vec<T>& b) {
    for (int i = 0; i < Simd<T>::lanes; i++) {
        a[i] = p[at[i]];
        b[i] = p[at[i] + 1];
    }
}
// Entries of a table of int32.
template <class T> STN_INLINE IVec<T> look_up(const int32_t* table, IVec<T> at) {
    IVec<T> found;
    for (int i = 0; i < Simd<T>::lanes; i++) found[i] = table[at[i]];
    return found;
}
// rows <-> columns of a square of `lanes` vectors
template <class T> STN_INLINE void transpose(Vec<T>* r) {
    constexpr int n = Simd<T>::lanes;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            T keep = r[i][j];
            r[i][j] = r[j][i];
            r[j][i] = keep;
        }
}

// Lane i of the result: the sum over the lanes of r[i], for `lanes` vectors, which are used up.
template <class T> STN_INLINE Vec<T> sums_of_rows(Vec<T>* r) {
    transpose<T>(r);
    for (int width = Simd<T>::lanes / 2; width; width /= 2)
        for (int i = 0; i < width; i++) r[i] += r[i + width];
    return r[0];
}

}  // namespace stn

#if defined(__SSE4_1__)
#include "simd_x86.h"
#endif
