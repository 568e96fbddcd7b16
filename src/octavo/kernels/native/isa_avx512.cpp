// Kernel table for AVX-512 with VNNI (Ice Lake 2019, Zen 4 2022).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC's own header of these instructions (bug 105593)
#define OCTAVO_ISA avx512
#define OCTAVO_AVX512 1
#include "isa.inc"

namespace octavo {
const KernelTable* avx512_table() { return avx512::table("avx512"); }
}  // namespace octavo
