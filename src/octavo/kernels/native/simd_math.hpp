// exp, exp2, tanh and sigmoid of eight floats, as polynomials with their errors.
#pragma once

#include "simd.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

constexpr float MINUS_INFINITY = -__builtin_inff();

// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2; ln 2 in two parts (the first with 9 bits, so n times it is exact), a
// polynomial of degree 6 for e^r (relative error 5e-9 before rounding). Below -87.3 (where the result would be subnormal) it
// is 0; above 88.7 it stays at the largest such power; NaN stays NaN. Relative error below 1.2e-7.
inline f32x8 exp8(f32x8 x) {
    const f32x8 lowest = all8(-87.33654f), highest = all8(88.72283f), shifter = all8(12582912.0f);  // 1.5 * 2^23
    const f32x8 bounded = x > highest ? highest : x;
    const f32x8 shifted = fma8(bounded, all8(1.44269504f), shifter);
    const f32x8 n = shifted - shifter;
    const f32x8 r = fma8(n, all8(2.12194440e-4f), fma8(n, all8(-0.693359375f), bounded));
    f32x8 p = fma8(r, all8(1.3888889e-3f), all8(8.3333333e-3f));
    p = fma8(p, r, all8(4.16666667e-2f));
    p = fma8(p, r, all8(0.166666667f));
    p = fma8(p, r, all8(0.5f));
    p = fma8(p, r, all8(1.0f));
    p = fma8(p, r, all8(1.0f));
    // 2^n by adding n to the exponent, in two steps: n may be 128.
    const i32x8 exponent = (i32x8)shifted - (i32x8)shifter;
    const i32x8 half = exponent >> 1;
    p = p * (f32x8)((half + 127) << 23) * (f32x8)((exponent - half + 127) << 23);
    return x < lowest ? f32x8{} : p;
}

// 2^x for x <= 0: 2^n 2^r, n = round(x), |r| <= 0.5, exact without a second step; a polynomial of degree 5 with the least largest
// relative error (8e-8, 1.6e-7 with rounding) and 2^0 = 1. 0 below -125.5; NaN stays NaN.
inline f32x8 exp2_negative8(f32x8 x) {
    const f32x8 shifter = all8(12582912.0f + 127.0f);  // n + 127 in the low bits: the exponent of 2^n
    const f32x8 shifted = x + shifter, r = x - (shifted - shifter);
    f32x8 p = fma8(r, all8(0x1.5bfc8ep-10f), all8(0x1.3cee4cp-7f));
    p = fma8(p, r, all8(0x1.c6b62ap-5f));
    p = fma8(p, r, all8(0x1.ebf9b2p-3f));
    p = fma8(p, r, all8(0x1.62e42cp-1f));
    p = fma8(p, r, all8(1.0f)) * (f32x8)((i32x8)shifted << 23);
    return x < all8(-125.5f) ? f32x8{} : p;
}

// tanh, odd: a polynomial below 0.625 (x + x^3 P(x^2)), above it 1 - 2 / (e^2x + 1).
inline f32x8 tanh8(f32x8 x) {
    const i32x8 sign = (i32x8)x & all8i(INT32_MIN);
    const f32x8 a = (f32x8)((i32x8)x & all8i(INT32_MAX)), s = x * x;
    f32x8 p = fma8(s, all8(-5.70498872745e-3f), all8(2.06390887954e-2f));
    p = fma8(p, s, all8(-5.37397155531e-2f));
    p = fma8(p, s, all8(1.33314422036e-1f));
    p = fma8(p, s, all8(-3.33332819422e-1f));
    p = fma8(p * s, x, x);
    const f32x8 large = all8(1.0f) - all8(2.0f) / (exp8(a + a) + all8(1.0f));
    return a < all8(0.625f) ? p : (f32x8)((i32x8)large | sign);
}

// 1 / (1 + e^-x)
inline f32x8 sigmoid8(f32x8 x) { return all8(1.0f) / (all8(1.0f) + exp8(f32x8{} - x)); }

}  // namespace
}  // namespace octavo::OCTAVO_ISA
