// Which instruction set does this CPU run? Asked once, before any code of it is called.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "table.hpp"

namespace octavo {
namespace {

bool runs(const char* name) {
    if (!std::strcmp(name, "portable")) return true;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (!std::strcmp(name, "avx2")) return avx2;
#endif
    return false;
}

const Table* compiled(const char* name) {
    if (!std::strcmp(name, "portable")) return portable_table();
#if defined(__x86_64__)
    if (!std::strcmp(name, "avx2")) return avx2_table();
#endif
    return nullptr;
}

}  // namespace

const Table* choose_table(const char* name) {
    if (name && *name) return runs(name) ? compiled(name) : nullptr;
    for (const char* best : {"avx2", "portable"})
        if (runs(best))
            if (const Table* table = compiled(best)) return table;
    return nullptr;
}

void check_failed(const char* condition, const char* file, int line) {
    std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
    std::abort();
}

}  // namespace octavo
