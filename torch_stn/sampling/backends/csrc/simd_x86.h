// The operations on float32 (and the rounding of float64) that the vector extensions compile badly, with x86 intrinsics.
#pragma once

namespace stn {

STN_INLINE __m128 two_pairs(const float* p, const float* q) {
    return _mm_loadh_pi(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i*)p)), (const __m64*)q);  // of any alignment
}

#if STN_BYTES == 64
typedef __m512 F;
template <> STN_INLINE Vec<float> floor_of<float>(Vec<float> v) { return (Vec<float>)_mm512_roundscale_ps((F)v, 0x09); }
template <> STN_INLINE Vec<float> round_of<float>(Vec<float> v) { return (Vec<float>)_mm512_roundscale_ps((F)v, 0x08); }
template <> STN_INLINE Vec<double> floor_of<double>(Vec<double> v) {
    return (Vec<double>)_mm512_roundscale_pd((__m512d)v, 0x09);
}
template <> STN_INLINE Vec<double> round_of<double>(Vec<double> v) {
    return (Vec<double>)_mm512_roundscale_pd((__m512d)v, 0x08);
}
STN_INLINE __mmask16 first_lanes(int n) { return (__mmask16)((1u << n) - 1); }
template <> STN_INLINE Vec<float> load_first<float>(const float* p, int n) {
    return n >= 16 ? load(p) : (Vec<float>)_mm512_maskz_loadu_ps(first_lanes(n), p);
}
template <> STN_INLINE void store_first<float>(float* p, Vec<float> v, int n) {
    if (n >= 16) return store(p, v);
    _mm512_mask_storeu_ps(p, first_lanes(n), (F)v);
}
template <> STN_INLINE Vec<float> gather<float>(const float* p, IVec<float> at) {
    return (Vec<float>)_mm512_i32gather_ps((__m512i)at, p, 4);
}
template <> STN_INLINE double sum<float>(Vec<float> v) { return _mm512_reduce_add_ps((F)v); }
template <> STN_INLINE IVec<float> look_up<float>(const int32_t* table, IVec<float> at) {
    return (IVec<float>)_mm512_i32gather_epi32((__m512i)at, table, 4);
}
// Gathers of 64-bit pairs, or loads and shuffles: which is faster is a matter of the processor (setup.py, X86).
template <>
STN_INLINE void gather_pairs<float>(const float* p, const int32_t* k, Vec<float>& a, Vec<float>& b) {
#if defined(STN_GATHERS)
    const __m256i low = _mm256_loadu_si256((const __m256i*)k), high = _mm256_loadu_si256((const __m256i*)(k + 8));
    const F left = (F)_mm512_i32gather_pd(low, p, 4), right = (F)_mm512_i32gather_pd(high, p, 4);
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    a = (Vec<float>)_mm512_permutex2var_ps(left, even, right);
    b = (Vec<float>)_mm512_permutex2var_ps(left, _mm512_add_epi32(even, _mm512_set1_epi32(1)), right);
#else
    F left = _mm512_castps128_ps512(two_pairs(p + k[0], p + k[1]));
    left = _mm512_insertf32x4(left, two_pairs(p + k[4], p + k[5]), 1);
    left = _mm512_insertf32x4(left, two_pairs(p + k[8], p + k[9]), 2);
    left = _mm512_insertf32x4(left, two_pairs(p + k[12], p + k[13]), 3);
    F right = _mm512_castps128_ps512(two_pairs(p + k[2], p + k[3]));
    right = _mm512_insertf32x4(right, two_pairs(p + k[6], p + k[7]), 1);
    right = _mm512_insertf32x4(right, two_pairs(p + k[10], p + k[11]), 2);
    right = _mm512_insertf32x4(right, two_pairs(p + k[14], p + k[15]), 3);
    a = (Vec<float>)_mm512_shuffle_ps(left, right, 0x88);
    b = (Vec<float>)_mm512_shuffle_ps(left, right, 0xdd);
#endif
}
STN_INLINE F pairs_low(F a, F b) { return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))); }
STN_INLINE F pairs_high(F a, F b) { return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))); }
template <> STN_INLINE void transpose<float>(Vec<float>* rows) {
    F* r = (F*)rows;
    F t[16], u[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        u[4 * i] = pairs_low(t[4 * i], t[4 * i + 2]);
        u[4 * i + 1] = pairs_high(t[4 * i], t[4 * i + 2]);
        u[4 * i + 2] = pairs_low(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i + 3] = pairs_high(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(u[i], u[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_f32x4(u[i], u[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_f32x4(u[8 + i], u[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_f32x4(u[8 + i], u[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

// Sums are halved while they are brought side by side: half the shuffles of a transpose.
template <> STN_INLINE Vec<float> sums_of_rows<float>(Vec<float>* rows) {
    F* r = (F*)rows;
    for (int i = 0; i < 8; i++)
        r[i] = _mm512_add_ps(_mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]), _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]));
    for (int i = 0; i < 4; i++) r[i] = _mm512_add_ps(pairs_low(r[2 * i], r[2 * i + 1]), pairs_high(r[2 * i], r[2 * i + 1]));
    for (int width = 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            r[i] = _mm512_add_ps(_mm512_shuffle_f32x4(r[2 * i], r[2 * i + 1], 0x88),
                                 _mm512_shuffle_f32x4(r[2 * i], r[2 * i + 1], 0xdd));
    return rows[0];
}

#elif STN_BYTES == 32
typedef __m256 F;
template <> STN_INLINE Vec<float> floor_of<float>(Vec<float> v) { return (Vec<float>)_mm256_floor_ps((F)v); }
template <> STN_INLINE Vec<float> round_of<float>(Vec<float> v) { return (Vec<float>)_mm256_round_ps((F)v, 0x08); }
template <> STN_INLINE Vec<double> floor_of<double>(Vec<double> v) { return (Vec<double>)_mm256_floor_pd((__m256d)v); }
template <> STN_INLINE Vec<double> round_of<double>(Vec<double> v) {
    return (Vec<double>)_mm256_round_pd((__m256d)v, 0x08);
}
STN_INLINE __m256i first_lanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
template <> STN_INLINE Vec<float> load_first<float>(const float* p, int n) {
    return n >= 8 ? load(p) : (Vec<float>)_mm256_maskload_ps(p, first_lanes(n));
}
template <> STN_INLINE void store_first<float>(float* p, Vec<float> v, int n) {
    if (n >= 8) return store(p, v);
    _mm256_maskstore_ps(p, first_lanes(n), (F)v);
}
template <>
STN_INLINE void gather_pairs<float>(const float* p, const int32_t* k, Vec<float>& a, Vec<float>& b) {
    F left = _mm256_castps128_ps256(two_pairs(p + k[0], p + k[1]));
    F right = _mm256_castps128_ps256(two_pairs(p + k[2], p + k[3]));
    left = _mm256_insertf128_ps(left, two_pairs(p + k[4], p + k[5]), 1);
    right = _mm256_insertf128_ps(right, two_pairs(p + k[6], p + k[7]), 1);
    a = (Vec<float>)_mm256_shuffle_ps(left, right, 0x88);
    b = (Vec<float>)_mm256_shuffle_ps(left, right, 0xdd);
}
template <> STN_INLINE void transpose<float>(Vec<float>* rows) {
    F* r = (F*)rows;
    F t[8], u[8];
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        u[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x20);
        r[4 + i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x31);
    }
}

#else
typedef __m128 F;
template <> STN_INLINE Vec<float> floor_of<float>(Vec<float> v) { return (Vec<float>)_mm_floor_ps((F)v); }
template <> STN_INLINE Vec<float> round_of<float>(Vec<float> v) { return (Vec<float>)_mm_round_ps((F)v, 0x08); }
template <> STN_INLINE Vec<double> floor_of<double>(Vec<double> v) { return (Vec<double>)_mm_floor_pd((__m128d)v); }
template <> STN_INLINE Vec<double> round_of<double>(Vec<double> v) { return (Vec<double>)_mm_round_pd((__m128d)v, 0x08); }
template <>
STN_INLINE void gather_pairs<float>(const float* p, const int32_t* k, Vec<float>& a, Vec<float>& b) {
    F left = two_pairs(p + k[0], p + k[1]), right = two_pairs(p + k[2], p + k[3]);
    a = (Vec<float>)_mm_shuffle_ps(left, right, 0x88);
    b = (Vec<float>)_mm_shuffle_ps(left, right, 0xdd);
}
template <> STN_INLINE void transpose<float>(Vec<float>* rows) {
    F* r = (F*)rows;
    _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
}
#endif

}  // namespace stn
