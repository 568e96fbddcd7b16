// Asynchronous copies to shared memory: cp.async (sm_80), mbarriers and TMA tensor copies (sm_90), and their CPU emulation.
// Names follow the PTX ISA's. The emulated twins copy at once, so a forgotten wait shows on a GPU only (compute-sanitizer).
#pragma once
#include "octavo.cuh"

#ifndef OCTAVO_EMULATED

struct alignas(64) TensorMap {
  uint64_t opaque[16];
};

DEVICE uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

// BYTES (4 or 16) to shared memory, of which the first `valid` come from `from`; the others are zeros.
template <int BYTES>
DEVICE void copy_async(void* to, const void* from, int valid) {
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid));
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(BYTES), "r"(valid));
}
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most PENDING of this thread's groups are still under way.
template <int PENDING>
DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

DEVICE void barrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
DEVICE void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void barrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrive, and expect that many bytes from the copy engine before the phase is over.
DEVICE void barrier_expect(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
// Until the phase of this parity is over.
DEVICE void barrier_wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n}" ::"r"(shared_address(barrier)), "r"(parity) : "memory");
}

// One box of a matrix, its first element at (row, column), into shared memory; `barrier` counts its bytes.
DEVICE void copy_tensor(void* to, const TensorMap* map, int row, int column, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          shared_address(to)),
      "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier))
      : "memory");
}
DEVICE void prefetch_map(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

#else  // emulated

struct alignas(64) TensorMap {
  const unsigned char* base;
  int64_t rows, columns;
  int box_rows, box_columns;
  uint32_t element_size;
  unsigned char unused[84];
};
static_assert(sizeof(TensorMap) == 128);

DEVICE uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - emulated::block.shared);
}

template <int BYTES>
DEVICE void copy_async(void* to, const void* from, int valid) {
  if (reinterpret_cast<uintptr_t>(to) % BYTES || (valid && reinterpret_cast<uintptr_t>(from) % BYTES))
    emulated::fail("cp.async of an address that is not aligned");
  std::memset(to, 0, BYTES);
  std::memcpy(to, from, valid);
}
DEVICE void copy_async_commit() {}
template <int PENDING>
DEVICE void copy_async_wait() {}

namespace emulated {
struct Mbarrier {
  uint16_t expected, pending;
  int32_t bytes : 31;
  uint32_t phase : 1;
};
inline Mbarrier& mbarrier(uint64_t* at) { return *reinterpret_cast<Mbarrier*>(at); }
inline void settle(Mbarrier& one) {
  if (one.pending == 0 && one.bytes == 0) {
    one.phase ^= 1;
    one.pending = one.expected;
    block.waits = 0;
  }
}
// The pattern CU_TENSOR_MAP_SWIZZLE_128B: within 8 rows of 128 bytes, a row's 16-byte chunks are permuted by its number.
inline uint32_t swizzle_128(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }
}  // namespace emulated

DEVICE void barrier_init(uint64_t* barrier, int arrivals) {
  emulated::mbarrier(barrier) = {static_cast<uint16_t>(arrivals), static_cast<uint16_t>(arrivals), 0, 0};
}
DEVICE void barrier_init_fence() {}
DEVICE void barrier_arrive(uint64_t* barrier) {
  emulated::Mbarrier& one = emulated::mbarrier(barrier);
  if (one.pending-- == 0) emulated::fail("more arrivals at a barrier than it was made for");
  emulated::settle(one);
}
DEVICE void barrier_expect(uint64_t* barrier, int bytes) {
  emulated::mbarrier(barrier).bytes += bytes;
  barrier_arrive(barrier);
}
DEVICE void barrier_wait(uint64_t* barrier, uint32_t parity) {
  while (emulated::mbarrier(barrier).phase == parity) emulated::yield();
}
DEVICE void copy_tensor(void* to, const TensorMap* map, int row, int column, uint64_t* barrier) {
  uint32_t start = shared_address(to), width = map->box_columns * map->element_size;
  if (start % 1024 || width != 128) emulated::fail("a swizzled box needs rows of 128 bytes and an address of 1,024");
  for (int i = 0; i < map->box_rows; i++)
    for (int j = 0; j < map->box_columns; j++) {
      unsigned char* at = emulated::block.shared + emulated::swizzle_128(start + i * 128 + j * map->element_size);
      int64_t r = row + i, c = column + j;
      if (r >= 0 && r < map->rows && c >= 0 && c < map->columns)
        std::memcpy(at, map->base + (r * map->columns + c) * map->element_size, map->element_size);
      else
        std::memset(at, 0, map->element_size);
    }
  emulated::Mbarrier& one = emulated::mbarrier(barrier);
  one.bytes -= map->box_rows * 128;
  emulated::settle(one);
}
DEVICE void prefetch_map(const TensorMap*) {}

#endif
