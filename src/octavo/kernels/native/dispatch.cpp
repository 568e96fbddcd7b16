// Choice of the kernel table: the best instruction set that this CPU runs, asked once, before any code of it is called.
//
// build.py says OCTAVO_WITH_<NAME> for each isa_<name>.cpp that is in the library. The compiler's runtime asks CPUID, and XGETBV
// whether the system keeps the wide registers.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernel_table.hpp"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace octavo {
namespace {

struct Isa {
    const char* name;
    bool (*runs)();
    const KernelTable* (*table)();
};

#if defined(__x86_64__)
bool runs_avx2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#if defined(OCTAVO_WITH_AVXVNNI)
bool runs_avxvnni() { return runs_avx2() && __builtin_cpu_supports("avxvnni"); }
#endif
#if defined(OCTAVO_WITH_AVX512)
bool runs_avx512() {
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512bf16");
}
#endif
#endif

#if defined(OCTAVO_WITH_NEON)
bool runs_neon() {
#if defined(__linux__)
    constexpr unsigned long FP16 = 1ul << 10, DOT_PRODUCT = 1ul << 20;  // HWCAP_ASIMDHP, HWCAP_ASIMDDP
    return (getauxval(AT_HWCAP) & (FP16 | DOT_PRODUCT)) == (FP16 | DOT_PRODUCT);
#else
    return true;  // every 64-bit Apple computer
#endif
}
#endif

bool runs_anywhere() { return true; }

// Best first.
constexpr Isa ISAS[] = {
#if defined(OCTAVO_WITH_AVX512)
    {"avx512", runs_avx512, avx512_table},
#endif
#if defined(OCTAVO_WITH_AVXVNNI)
    {"avxvnni", runs_avxvnni, avxvnni_table},
#endif
#if defined(OCTAVO_WITH_AVX2)
    {"avx2", runs_avx2, avx2_table},
#endif
#if defined(OCTAVO_WITH_NEON)
    {"neon", runs_neon, neon_table},
#endif
    {"portable", runs_anywhere, portable_table},
};

}  // namespace

const KernelTable* choose_table(const char* name) {
    for (const Isa& isa : ISAS)
        if ((!name || !*name || !std::strcmp(name, isa.name)) && isa.runs()) return isa.table();
    return nullptr;
}

void check_failed(const char* condition, const char* file, int line) {
    std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
    std::abort();
}

}  // namespace octavo
