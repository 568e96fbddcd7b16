// Eight floats at once, in the compilers' own vector extension: written once, compiled for every instruction set.
#pragma once

#include <cstdint>
#include <cstring>

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

}  // namespace
}  // namespace octavo::OCTAVO_ISA
