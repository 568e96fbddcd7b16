// Matmul micro-kernel in portable C++: 16 output columns, for CPUs without a micro-kernel of their own.
//
// Every micro_kernel_*.hpp defines the same names with the same meaning; gemm_float.hpp and gemm_quantized.hpp are written once
// over them.
//   Floats       one float for each of the 16 columns
//   Weights4x16  64 bytes of weights: four consecutive elements of K for each column
//   Dot*         16 integer dot products under way, for weights of one format. `start` takes the group's offset (types.hpp), which
//                only VNNI needs. add_pair adds eight elements of K for each of some rows: two Weights4x16 times eight bytes of
//                activations, which all columns share; rows lie `stride` bytes apart
//   Group        GROUP floats of one row: largest(|x|), and rounding of x * factor (at most 127) to bytes with two sums of 16 each
#pragma once

#include "float16.hpp"

namespace octavo::OCTAVO_ISA {
namespace {
namespace micro_kernel {

constexpr int FLOAT_ROWS = 4;  // rows that share what was loaded of a float weight; Dot::ROWS: of others

struct Floats {
    float v[TILE];
};
inline Floats all(float x) {
    Floats y;
    for (float& e : y.v) e = x;
    return y;
}
inline Floats load(const float* p) {
    Floats y;
    std::memcpy(y.v, p, sizeof y.v);
    return y;
}
inline void store(float* p, const Floats& x) { std::memcpy(p, x.v, sizeof x.v); }
inline Floats load_f16(const uint16_t* p) {
    Floats y;
    for (int i = 0; i < TILE; ++i) y.v[i] = float_of_f16(p[i]);
    return y;
}
inline Floats load_bf16(const uint16_t* p) {
    Floats y;
    for (int i = 0; i < TILE; ++i) y.v[i] = float_of_bf16(p[i]);
    return y;
}
inline Floats add(Floats a, const Floats& b) {
    for (int i = 0; i < TILE; ++i) a.v[i] += b.v[i];
    return a;
}
inline Floats mul(Floats a, const Floats& b) {
    for (int i = 0; i < TILE; ++i) a.v[i] *= b.v[i];
    return a;
}
inline Floats fma(const Floats& a, const Floats& b, Floats c) {  // a * b + c; rounded once where the CPU can
    for (int i = 0; i < TILE; ++i) c.v[i] += a.v[i] * b.v[i];
    return c;
}
inline void keep_memory(float*) {}

struct Weights4x16 {
    uint8_t v[4 * TILE];
};
inline Weights4x16 load_weights(const uint8_t* p) {
    Weights4x16 w;
    std::memcpy(w.v, p, sizeof w.v);
    return w;
}
inline void store(uint8_t* p, const Weights4x16& w) { std::memcpy(p, w.v, sizeof w.v); }
inline Weights4x16 low_nibbles(Weights4x16 w) {
    for (uint8_t& e : w.v) e &= 15;
    return w;
}
inline Weights4x16 high_nibbles(Weights4x16 w) {
    for (uint8_t& e : w.v) e >>= 4;
    return w;
}

template <class Byte>  // of a weight
struct Dot {
    static constexpr int ROWS = 4;
    int32_t v[TILE] = {};
    void start(const int32_t*) {}
    void pair(const Weights4x16& w0, const Weights4x16& w1, const int8_t* a) {
        for (int i = 0; i < 4 * TILE; ++i) v[i / 4] += Byte(w0.v[i]) * a[i % 4] + Byte(w1.v[i]) * a[4 + i % 4];
    }
    Floats finish() const {
        Floats y;
        for (int i = 0; i < TILE; ++i) y.v[i] = float(v[i]);
        return y;
    }
};
template <class Dot, int R>
inline void add_pair(Dot (&dots)[R], const Weights4x16& w0, const Weights4x16& w1, const int8_t* a, size_t stride) {
    for (int r = 0; r < R; ++r) dots[r].pair(w0, w1, a + r * stride);
}
using DotU4 = Dot<uint8_t>;
using DotU8 = Dot<uint8_t>;
using DotQ8 = Dot<int8_t>;

struct Group {
    float v[GROUP];
};
inline Group load_group(const float* p) {
    Group x;
    std::memcpy(x.v, p, sizeof x.v);
    return x;
}
inline void store(float* p, const Group& x) { std::memcpy(p, x.v, sizeof x.v); }
inline float largest(const Group& x) {
    uint32_t most = 0;
    for (const float e : x.v)
        if (const uint32_t bits = bits_of_float(e) & 0x7fffffff; bits > most) most = bits;
    return float_of_bits(most);
}
inline void round_group(const Group& x, float factor, int8_t* q, int32_t* sums) {
    constexpr float INTEGERS = 0x1.8p23f;  // floats around it are the integers: an addition rounds to them, ties to even
    for (int i = 0; i < GROUP; ++i) {
        q[i] = int8_t((x.v[i] * factor + INTEGERS) - INTEGERS);
        sums[i / (GROUP / 2)] += q[i];
    }
}

}  // namespace micro_kernel
}  // namespace
}  // namespace octavo::OCTAVO_ISA
