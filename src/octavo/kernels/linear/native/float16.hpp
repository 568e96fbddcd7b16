// Scalar conversions of float16 and bfloat16 to float.
#pragma once

#include <cstdint>
#include <cstring>

namespace octavo::OCTAVO_ISA {
namespace {

inline float float_of_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline uint32_t bits_of_float(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float float_of_bf16(uint16_t h) { return float_of_bits(uint32_t(h) << 16); }

// Exponent and fraction move into a float's place, where they mean 2^-112 times as much; the product mends that, subnormals
// included. An exponent of all ones (infinity, NaN) stays one.
inline float float_of_f16(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, magnitude = uint32_t(h & 0x7fff) << 13;
    if (magnitude >= 0x7c00u << 13) return float_of_bits(sign | 0x7f800000 | magnitude);
    return float_of_bits(sign | bits_of_float(float_of_bits(magnitude) * 0x1p112f));
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
