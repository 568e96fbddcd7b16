// Kernel table for 64-bit ARM with the dot products of ARMv8.2 (Cortex-A75 2017, Neoverse N1 2019, every Apple computer).
#define OCTAVO_ISA neon
#define OCTAVO_NEON 1
#include "isa.inc"

namespace octavo {
const KernelTable* neon_table() { return neon::table("neon"); }
}  // namespace octavo
