// Kernel table for AVX2 with the dot products of AVX-VNNI (Alder Lake 2021, Zen 5 2024; also where AVX-512 is switched off).
#define OCTAVO_ISA avxvnni
#define OCTAVO_AVX2 1
#define OCTAVO_AVXVNNI 1
#include "isa.inc"

namespace octavo {
const KernelTable* avxvnni_table() { return avxvnni::table("avxvnni"); }
}  // namespace octavo
