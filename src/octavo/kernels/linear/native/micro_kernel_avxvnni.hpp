// Integer dot products of the AVX2 micro-kernel by AVX-VNNI's vpdpbusd: four products and their sum in one instruction.
//
// A machine without it tests the kernels with OCTAVO_EMULATE_AVXVNNI: that instruction by others, everything else as it is.
#pragma once

namespace octavo::OCTAVO_ISA {
namespace {
namespace micro_kernel {

// Adds four products of unsigned (a) and signed (b) bytes to each of eight 32-bit sums. Nothing saturates on the way.
inline __m256i dpbusd(__m256i sum, __m256i a, __m256i b) {
#if defined(OCTAVO_EMULATE_AVXVNNI)
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
#else
    return _mm256_dpbusd_avx_epi32(sum, a, b);
#endif
}

// Of a group at most 32 * 255 * 127 (1,036,320): any unsigned byte may be a weight.
struct DotUnsigned {
    static constexpr int ROWS = 6;  // 12 sums, 2 registers of weights, activations
    __m256i lo, hi;
    void start(const int32_t*) { lo = hi = _mm256_setzero_si256(); }
    void multiply_add(Weights4x16 w, const int8_t* a) {
        const __m256i x = four_bytes(a);
        lo = dpbusd(lo, w.lo, x), hi = dpbusd(hi, w.hi, x);
        keep(lo), keep(hi);
    }
    Floats finish() const { return to_floats(lo, hi); }
};
using DotU4 = DotUnsigned;
using DotU8 = DotUnsigned;

// Signed weights as w + 128, which flips their highest bit, from the offset that takes 128 * sum(a) back.
struct DotQ8 : DotUnsigned {
    void start(const int32_t* offset) { lo = hi = _mm256_set1_epi32(*offset); }
    void multiply_add(Weights4x16 w, const int8_t* a) {
        const __m256i flip = _mm256_set1_epi8(-128);
        DotUnsigned::multiply_add({_mm256_xor_si256(w.lo, flip), _mm256_xor_si256(w.hi, flip)}, a);
    }
};

}  // namespace micro_kernel
}  // namespace
}  // namespace octavo::OCTAVO_ISA
