// SIMD vectors of eight floats in the compilers' vector extension: written once, compiled for every instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(OCTAVO_AVX2)
#include <immintrin.h>
#endif

namespace octavo {

typedef float f32x8 __attribute__((vector_size(32)));
typedef int32_t i32x8 __attribute__((vector_size(32)));

}  // namespace octavo

namespace octavo::OCTAVO_ISA {
namespace {

inline f32x8 load8(const float* p) {
    f32x8 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store8(float* p, f32x8 v) { std::memcpy(p, &v, sizeof v); }
inline f32x8 all8(float x) { return f32x8{x, x, x, x, x, x, x, x}; }
inline float sum8(f32x8 v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

// The first n < 8 floats of p, then zeros; and back. What lies behind them is neither read nor written.
inline f32x8 load_part(const float* p, int n) {
    f32x8 v = {};
    std::memcpy(&v, p, size_t(n) * sizeof(float));
    return v;
}
inline void store_part(float* p, f32x8 v, int n) { std::memcpy(p, &v, size_t(n) * sizeof(float)); }

// Numbers as the cache keeps them: bfloat16 is the upper half of a float.
inline f32x8 load8(const uint16_t* p) {
#if defined(OCTAVO_AVX2)
    return (f32x8)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
#else
    typedef uint16_t u16x8 __attribute__((vector_size(16)));
    u16x8 v;
    std::memcpy(&v, p, sizeof v);
    return (f32x8)(__builtin_convertvector(v, i32x8) << 16);
#endif
}
inline f32x8 load8(const int8_t* p) {
#if defined(OCTAVO_AVX2)
    return (f32x8)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
    f32x8 v;
    for (int i = 0; i < 8; ++i) v[i] = float(p[i]);
    return v;
#endif
}

// Sixteen numbers in the order that costs least to read; `in_order` puts them right. Bfloat16 in AVX2: the even ones, the odd ones.
struct Pair {
    f32x8 a, b;
};
inline void store16(float* p, Pair v) { store8(p, v.a), store8(p + 8, v.b); }
template <class T>
inline Pair load16(const T* p) {
    return {load8(p), load8(p + 8)};
}
template <class T>
inline Pair in_order(const T*, Pair v) {
    return v;
}
#if defined(OCTAVO_AVX2)
inline Pair load16(const uint16_t* p) {
    const __m256i v = _mm256_loadu_si256((const __m256i*)p);
    return {(f32x8)_mm256_slli_epi32(v, 16), (f32x8)_mm256_and_si256(v, _mm256_set1_epi32(int(0xffff0000)))};
}
inline Pair in_order(const uint16_t*, Pair v) {
    const __m256 low = _mm256_unpacklo_ps((__m256)v.a, (__m256)v.b), high = _mm256_unpackhi_ps((__m256)v.a, (__m256)v.b);
    return {(f32x8)_mm256_permute2f128_ps(low, high, 0x20), (f32x8)_mm256_permute2f128_ps(low, high, 0x31)};
}
#endif

// Keeps a vector in a register: GCC would rather read it again for every use, and the load ports are what is short.
inline void hold8(f32x8& v) {
#if defined(OCTAVO_AVX2)
    asm("" : "+x"(v));
#else
    (void)v;
#endif
}

// a * b + c, spelled out: a compiler that fuses here and not there would make a row's result depend on how it was blocked.
inline f32x8 fma8(f32x8 a, f32x8 b, f32x8 c) {
#if defined(OCTAVO_AVX2)
    return (f32x8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}
inline f32x8 max8(f32x8 a, f32x8 b) {  // b if one of them is NaN
#if defined(OCTAVO_AVX2)
    return (f32x8)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}
inline float highest8(f32x8 v) {
    float best = v[0];
    for (int i = 1; i < 8; ++i) best = v[i] > best ? v[i] : best;
    return best;
}
inline i32x8 first8() { return i32x8{0, 1, 2, 3, 4, 5, 6, 7}; }
inline i32x8 all8i(int32_t x) { return i32x8{x, x, x, x, x, x, x, x}; }

}  // namespace
}  // namespace octavo::OCTAVO_ISA
