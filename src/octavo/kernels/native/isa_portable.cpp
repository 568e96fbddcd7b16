// Kernel table in plain C++ with the compiler's default flags: what any CPU of this architecture runs.
#define OCTAVO_ISA portable
#include "isa.inc"

namespace octavo {
const KernelTable* portable_table() { return portable::table("portable"); }
}  // namespace octavo
