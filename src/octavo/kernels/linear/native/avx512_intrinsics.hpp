// AVX-512 intrinsics of the matmul micro-kernel, and their scalar emulation for tests on CPUs without AVX-512.
//
// Names are those of the intrinsics. With OCTAVO_EMULATE_AVX512 each is a loop over its lanes, as the instruction set's manual
// describes it, so that a machine without them can test what is built of them, bit for bit.
#pragma once

#include "float16.hpp"

#if defined(OCTAVO_EMULATE_AVX512)
#include <cmath>
#else
#include <immintrin.h>
#endif

namespace octavo::OCTAVO_ISA {
namespace {
namespace avx512_ops {

#if defined(OCTAVO_EMULATE_AVX512)

struct Floats {
    float v[16];
};
struct Ints {
    int32_t v[16];
};
template <class To, class From>
inline To same_bits(const From& from) {
    To to;
    static_assert(sizeof to == sizeof from);
    std::memcpy(&to, &from, sizeof to);
    return to;
}
template <class F>
inline Floats floats(F of) {
    Floats y;
    for (int i = 0; i < 16; ++i) y.v[i] = of(i);
    return y;
}
template <class F>
inline Ints ints(F of) {
    Ints y;
    for (int i = 0; i < 16; ++i) y.v[i] = of(i);
    return y;
}
inline Floats set1_ps(float x) {
    return floats([&](int) { return x; });
}
inline Floats loadu_ps(const float* p) {
    return floats([&](int i) { return p[i]; });
}
inline void storeu_ps(float* p, const Floats& x) { std::memcpy(p, x.v, sizeof x.v); }
inline Floats add_ps(const Floats& a, const Floats& b) {
    return floats([&](int i) { return a.v[i] + b.v[i]; });
}
inline Floats mul_ps(const Floats& a, const Floats& b) {
    return floats([&](int i) { return a.v[i] * b.v[i]; });
}
inline Floats fmadd_ps(const Floats& a, const Floats& b, const Floats& c) {
    return floats([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
inline Floats cvtph_ps(const uint16_t* p) {
    return floats([&](int i) { return float_of_f16(p[i]); });
}
inline Ints cvtepu16_epi32(const uint16_t* p) {
    return ints([&](int i) { return p[i]; });
}
inline Ints set1_epi32(int32_t x) {
    return ints([&](int) { return x; });
}
inline Ints loadu_si512(const void* p) {
    Ints y;
    std::memcpy(y.v, p, sizeof y.v);
    return y;
}
inline void storeu_si512(void* p, const Ints& x) { std::memcpy(p, x.v, sizeof x.v); }
inline Ints and_si512(const Ints& a, const Ints& b) {
    return ints([&](int i) { return a.v[i] & b.v[i]; });
}
inline Ints xor_si512(const Ints& a, const Ints& b) {
    return ints([&](int i) { return a.v[i] ^ b.v[i]; });
}
inline Ints srli_epi32_4(const Ints& a) {
    return ints([&](int i) { return int32_t(uint32_t(a.v[i]) >> 4); });
}
inline Ints slli_epi32_16(const Ints& a) {
    return ints([&](int i) { return int32_t(uint32_t(a.v[i]) << 16); });
}
inline Ints add_epi32(const Ints& a, const Ints& b) {
    return ints([&](int i) { return int32_t(uint32_t(a.v[i]) + uint32_t(b.v[i])); });
}
inline Ints max_epi32(const Ints& a, const Ints& b) {
    return ints([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Ints dpbusd_epi32(const Ints& sum, const Ints& a, const Ints& b) {  // four products of a lane; wraps around, saturates nothing
    return ints([&](int i) {
        uint32_t y = uint32_t(sum.v[i]);
        for (int j = 0; j < 4; ++j) y += uint32_t(int32_t(uint8_t(a.v[i] >> 8 * j)) * int32_t(int8_t(b.v[i] >> 8 * j)));
        return int32_t(y);
    });
}
inline Floats cvtepi32_ps(const Ints& a) {
    return floats([&](int i) { return float(a.v[i]); });
}
inline Ints cvtps_epi32(const Floats& a) {
    return ints([&](int i) { return int32_t(std::nearbyint(a.v[i])); });
}
inline Floats castsi512_ps(const Ints& a) { return same_bits<Floats>(a); }
inline Ints castps_si512(const Floats& a) { return same_bits<Ints>(a); }
inline void cvtepi32_storeu_epi8(int8_t* p, const Ints& a) {
    for (int i = 0; i < 16; ++i) p[i] = int8_t(a.v[i]);
}
inline int32_t reduce_add_epi32(const Ints& a) {
    uint32_t y = 0;
    for (const int32_t e : a.v) y += uint32_t(e);
    return int32_t(y);
}
inline int32_t reduce_max_epi32(const Ints& a) {
    int32_t y = a.v[0];
    for (const int32_t e : a.v) y = e > y ? e : y;
    return y;
}

#else

using Floats = __m512;
using Ints = __m512i;
inline Floats set1_ps(float x) { return _mm512_set1_ps(x); }
inline Floats loadu_ps(const float* p) { return _mm512_loadu_ps(p); }
inline void storeu_ps(float* p, Floats x) { _mm512_storeu_ps(p, x); }
inline Floats add_ps(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats mul_ps(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats fmadd_ps(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats cvtph_ps(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline Ints cvtepu16_epi32(const uint16_t* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)); }
inline Ints set1_epi32(int32_t x) { return _mm512_set1_epi32(x); }
inline Ints loadu_si512(const void* p) { return _mm512_loadu_si512(p); }
inline void storeu_si512(void* p, Ints x) { _mm512_storeu_si512(p, x); }
inline Ints and_si512(Ints a, Ints b) { return _mm512_and_si512(a, b); }
inline Ints xor_si512(Ints a, Ints b) { return _mm512_xor_si512(a, b); }
inline Ints srli_epi32_4(Ints a) { return _mm512_srli_epi32(a, 4); }
inline Ints slli_epi32_16(Ints a) { return _mm512_slli_epi32(a, 16); }
inline Ints add_epi32(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints max_epi32(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
inline Ints dpbusd_epi32(Ints sum, Ints a, Ints b) { return _mm512_dpbusd_epi32(sum, a, b); }
inline Floats cvtepi32_ps(Ints a) { return _mm512_cvtepi32_ps(a); }
inline Ints cvtps_epi32(Floats a) { return _mm512_cvtps_epi32(a); }
inline Floats castsi512_ps(Ints a) { return _mm512_castsi512_ps(a); }
inline Ints castps_si512(Floats a) { return _mm512_castps_si512(a); }
inline void cvtepi32_storeu_epi8(int8_t* p, Ints a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a)); }
inline int32_t reduce_add_epi32(Ints a) { return _mm512_reduce_add_epi32(a); }
inline int32_t reduce_max_epi32(Ints a) { return _mm512_reduce_max_epi32(a); }

#endif

}  // namespace avx512_ops
}  // namespace
}  // namespace octavo::OCTAVO_ISA
