// Kernel table of the linear kernels over emulated AVX-512 or AVX-VNNI instructions, for tests on CPUs without them.
//
// EMULATED_AVX512: everything of avx512_intrinsics.hpp; EMULATED_AVXVNNI: the dot product alone, the rest needs AVX2.
#define OCTAVO_ISA emulated
#if defined(EMULATED_AVX512)
#define OCTAVO_AVX512 1
#define OCTAVO_EMULATE_AVX512 1
#else
#define OCTAVO_AVX2 1
#define OCTAVO_AVXVNNI 1
#define OCTAVO_EMULATE_AVXVNNI 1
#endif
#include "native/kernel_table.hpp"
#include "linear/native/linear.hpp"

extern "C" __attribute__((visibility("default"))) const octavo::KernelTable* emulated_table() {
    static octavo::KernelTable t = {};
    t.name = "emulated";
    t.linear = octavo::emulated::linear;
    t.unpack_row = octavo::emulated::unpack_row;
    t.quantize = octavo::emulated::quantize;
    return &t;
}
