// Sixteen output columns at once, in plain C++: what any compiler turns into something for any CPU.
//
// The same names with the same meaning are in columns_avx2.hpp and columns_avx512.hpp; the kernels are written over them once.
//   Floats  one float for each column
//   Quad    64 bytes: four consecutive elements of K for each column
//   Dot*    sixteen integer dot products under way, for weights of one kind; add_pair adds eight elements of K for each of some rows: two quads of
//           weights times eight bytes of activations, which all columns share; rows lie `stride` bytes apart
//           first `start` is given the group's offset (types.hpp), which only VNNI needs
//   Group   GROUP floats of one row: largest(|x|), and rounding of x * factor (at most 127) to bytes with a sum for each half
#pragma once

#include "scalars.hpp"

namespace octavo::OCTAVO_ISA {
namespace {
namespace columns {

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
inline Floats load_half(const uint16_t* p) {
    Floats y;
    for (int i = 0; i < TILE; ++i) y.v[i] = float_of_half(p[i]);
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

struct Quad {
    uint8_t v[4 * TILE];
};
inline Quad load_quad(const uint8_t* p) {
    Quad q;
    std::memcpy(q.v, p, sizeof q.v);
    return q;
}
inline void store(uint8_t* p, const Quad& q) { std::memcpy(p, q.v, sizeof q.v); }
inline Quad low_nibbles(Quad q) {
    for (uint8_t& e : q.v) e &= 15;
    return q;
}
inline Quad high_nibbles(Quad q) {
    for (uint8_t& e : q.v) e >>= 4;
    return q;
}

template <class Byte>  // of a weight
struct Dot {
    static constexpr int ROWS = 4;
    int32_t v[TILE] = {};
    void start(const int32_t*) {}
    void pair(const Quad& w0, const Quad& w1, const int8_t* a) {
        for (int i = 0; i < 4 * TILE; ++i) v[i / 4] += Byte(w0.v[i]) * a[i % 4] + Byte(w1.v[i]) * a[4 + i % 4];
    }
    Floats finish() const {
        Floats y;
        for (int i = 0; i < TILE; ++i) y.v[i] = float(v[i]);
        return y;
    }
};
template <class Dot, int R>
inline void add_pair(Dot (&dots)[R], const Quad& w0, const Quad& w1, const int8_t* a, size_t stride) {
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

}  // namespace columns
}  // namespace
}  // namespace octavo::OCTAVO_ISA
