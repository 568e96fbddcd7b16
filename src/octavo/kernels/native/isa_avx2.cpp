// Kernel table for AVX2 + FMA + F16C (x86-64-v3: Haswell 2013, Zen 2017).
#define OCTAVO_ISA avx2
#define OCTAVO_AVX2 1
#include "isa.inc"

namespace octavo {
const KernelTable* avx2_table() { return avx2::table("avx2"); }
}  // namespace octavo
