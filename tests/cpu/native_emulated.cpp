// The AVX-512 kernels over emulated instructions (avx512_lanes.hpp), as a table for the tests of a machine without them.
#define OCTAVO_ISA emulated
#define OCTAVO_AVX512 1
#define OCTAVO_EMULATE_AVX512 1
#include "native/table.hpp"
#include "linear/native/linear.hpp"

extern "C" __attribute__((visibility("default"))) const octavo::Table* emulated_table() {
    static octavo::Table t = {};
    t.name = "avx512-emulated";
    t.linear = octavo::emulated::linear;
    t.unpack_row = octavo::emulated::unpack_row;
    t.quantize = octavo::emulated::quantize;
    return &t;
}
