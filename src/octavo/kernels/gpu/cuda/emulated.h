// Emulation of CUDA blocks on a CPU, to test CUDA kernels without a GPU: a block is a ring of fibres, one per thread.
//
// A fibre runs until it waits (a barrier, a shuffle, a poll); the ring's order is shuffled anew for every block from a seed,
// and shared memory is NaN when a block starts: what reads before the write, or races past a missing barrier, shows.
// Asynchronous instructions (asynchronous.cuh, tensor_cores.cuh) happen at once, so a missing wait does NOT show.
#pragma once

#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>

#define DEVICE inline
#define __global__
#define __device__ inline
#define __forceinline__
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__
#define __cluster_dims__(...)
#define __align__(size) alignas(size)
#define __shared__ static __attribute__((section("octavo_shared")))
#define DYNAMIC_SHARED(name) unsigned char* name = emulated::block.shared

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulated {

struct Index {
  unsigned x, y, z;
};
constexpr unsigned MAX_THREADS = 1024;
constexpr size_t STACK = 128 << 10;
constexpr unsigned PATIENCE = 20000;  // rounds of waiting after which nothing can come any more

struct Warp {
  unsigned arrived, generation;
  alignas(16) unsigned char slots[2][32][64];
};
struct Barrier {
  unsigned arrived, generation;
};
struct Fibre {
  jmp_buf at;
  bool started, done;
};

struct Block {
  unsigned char* shared;
  size_t shared_bytes;
  unsigned num_threads, alive, rank, waits;
  const char* problem;
  unsigned order[MAX_THREADS], place[MAX_THREADS];
  Fibre fibres[MAX_THREADS];
  Warp warps[MAX_THREADS / 32];
  Barrier barriers[16];
  jmp_buf scheduler;
  ucontext_t fresh, back;
  char* stacks;
  void (*body)(const unsigned char*);
  const unsigned char* arguments;
  uint64_t random;
};
inline Block block;
inline Index thread_index, block_index, block_size, grid_size;

inline uint32_t random() {  // xorshift (Marsaglia, 2003)
  uint64_t& x = block.random;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return static_cast<uint32_t>(x >> 32);
}

[[noreturn]] inline void fail(const char* problem) {
  if (block.problem == nullptr) block.problem = problem;
  _longjmp(block.scheduler, 1);
}

inline void enter(unsigned rank);

inline void run_fibre() {
  block.body(block.arguments);
  Fibre& self = block.fibres[block.rank];
  self.done = true;
  block.alive--;
  block.waits = 0;
  if (block.alive == 0) _longjmp(block.scheduler, 1);
  unsigned next = block.place[block.rank];
  do next = (next + 1) % block.num_threads;
  while (block.fibres[block.order[next]].done);
  enter(block.order[next]);
}

inline void enter(unsigned rank) {
  block.rank = rank;
  thread_index = {rank % block_size.x, rank / block_size.x % block_size.y, rank / (block_size.x * block_size.y)};
  Fibre& fibre = block.fibres[rank];
  if (fibre.started) _longjmp(fibre.at, 1);
  fibre.started = true;
  getcontext(&block.fresh);
  block.fresh.uc_stack.ss_sp = block.stacks + rank * STACK;
  block.fresh.uc_stack.ss_size = STACK;
  block.fresh.uc_link = &block.back;
  makecontext(&block.fresh, run_fibre, 0);
  setcontext(&block.fresh);
}

// Let the others run.
inline void yield() {
  if (++block.waits > PATIENCE * block.num_threads) fail("deadlock: every thread waits");
  unsigned next = block.place[block.rank];
  do next = (next + 1) % block.num_threads;
  while (block.fibres[block.order[next]].done);
  if (block.order[next] == block.rank) return;
  if (_setjmp(block.fibres[block.rank].at) == 0) enter(block.order[next]);
}

// ``expected`` threads; 0: all that have not ended.
inline void wait_barrier(Barrier& barrier, unsigned expected) {
  unsigned mine = barrier.generation;
  barrier.arrived++;
  while (barrier.generation == mine) {
    if (barrier.arrived >= (expected ? expected : block.alive)) {
      barrier.arrived = 0;
      barrier.generation++;
      block.waits = 0;
    } else {
      yield();
    }
  }
}

inline unsigned lane() { return block.rank % 32; }

// Every lane of the warp shows ``mine`` to the others: element i is lane i's. Two buffers, so one barrier is enough.
template <class T>
inline const T* exchange(const T& mine) {
  static_assert(sizeof(T) <= 64);
  Warp& warp = block.warps[block.rank / 32];
  unsigned generation = warp.generation, width = block.num_threads - block.rank / 32 * 32;
  static_assert(64 % alignof(T) == 0);
  T* slots = reinterpret_cast<T*>(warp.slots[generation % 2]);
  std::memcpy(static_cast<void*>(&slots[lane()]), &mine, sizeof(T));
  warp.arrived++;
  while (warp.generation == generation) {
    if (warp.arrived == (width < 32 ? width : 32)) {
      warp.arrived = 0;
      warp.generation++;
      block.waits = 0;
    } else {
      yield();
    }
  }
  return slots;
}

template <class T>
inline T shuffle(T value, unsigned from) {
  const T* all = exchange(value);
  T out = from < 32 ? all[from] : value;
  return out;
}

inline uint16_t to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float from_float16(uint16_t bits) {
  _Float16 value;
  std::memcpy(&value, &bits, 2);
  return static_cast<float>(value);
}
inline uint16_t to_float16(float value) {
  _Float16 rounded = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &rounded, 2);
  return bits;
}

extern "C" unsigned char __start_octavo_shared[] __attribute__((weak));
extern "C" unsigned char __stop_octavo_shared[] __attribute__((weak));
constexpr size_t CANARY = 1024;

inline const char* run_block() {
  unsigned count = block_size.x * block_size.y * block_size.z;
  block.num_threads = block.alive = count;
  block.waits = 0;
  for (unsigned i = 0; i < count; i++) {
    unsigned other = random() % (i + 1);
    block.order[i] = block.order[other];
    block.order[other] = i;
    block.fibres[i].started = block.fibres[i].done = false;
  }
  for (unsigned i = 0; i < count; i++) block.place[block.order[i]] = i;
  std::memset(block.warps, 0, sizeof block.warps);
  std::memset(block.barriers, 0, sizeof block.barriers);
  std::memset(block.shared, 0xff, block.shared_bytes + CANARY);
  if (__start_octavo_shared) std::memset(__start_octavo_shared, 0xff, __stop_octavo_shared - __start_octavo_shared);
  if (_setjmp(block.scheduler) == 0) enter(block.order[0]);
  for (size_t i = 0; i < CANARY; i++)
    if (block.shared[block.shared_bytes + i] != 0xff) return "a thread wrote past the end of its dynamic shared memory";
  return block.problem;
}

// Blocks in a random order as well: nothing may depend on it.
inline const char* run_grid(const unsigned* sizes, size_t shared_bytes, uint64_t seed) {
  grid_size = {sizes[0], sizes[1], sizes[2]};
  block_size = {sizes[3], sizes[4], sizes[5]};
  uint64_t total = static_cast<uint64_t>(grid_size.x) * grid_size.y * grid_size.z;
  block.random = seed * 2654435761u + 88172645463325252ull;
  block.problem = nullptr;
  block.shared_bytes = shared_bytes;
  block.shared = static_cast<unsigned char*>(std::aligned_alloc(1024, (shared_bytes + CANARY + 1023) / 1024 * 1024));
  block.stacks = static_cast<char*>(std::malloc(MAX_THREADS * STACK));
  uint64_t first = total ? random() % total : 0;
  const char* problem = nullptr;
  for (uint64_t i = 0; i < total && problem == nullptr; i++) {
    uint64_t index = (first + (total - i)) % total;
    block_index = {static_cast<unsigned>(index % grid_size.x), static_cast<unsigned>(index / grid_size.x % grid_size.y),
                   static_cast<unsigned>(index / grid_size.x / grid_size.y)};
    problem = run_block();
  }
  std::free(block.shared);
  std::free(block.stacks);
  return problem;
}

// The packed parameter buffer of a launch, as the driver reads it: each at its own alignment.
template <class T>
inline T take(const unsigned char* buffer, size_t& offset) {
  offset = (offset + alignof(T) - 1) / alignof(T) * alignof(T);
  T value;
  std::memcpy(static_cast<void*>(&value), buffer + offset, sizeof(T));
  offset += sizeof(T);
  return value;
}
template <class... P>
inline void call(void (*kernel)(P...), const unsigned char* buffer) {
  [[maybe_unused]] size_t offset = 0;
  std::tuple<P...> values{take<P>(buffer, offset)...};  // braces: from left to right
  std::apply(kernel, values);
}

}  // namespace emulated

#define threadIdx emulated::thread_index
#define blockIdx emulated::block_index
#define blockDim emulated::block_size
#define gridDim emulated::grid_size

inline void __syncthreads() { emulated::wait_barrier(emulated::block.barriers[0], 0); }
inline void __syncwarp(uint32_t = ~0u) { emulated::exchange(0); }
inline void __threadfence() {}
inline void __trap() { emulated::fail("the kernel trapped"); }

template <class T>
inline T __shfl_xor_sync(uint32_t, T value, int mask) {
  return emulated::shuffle(value, emulated::lane() ^ mask);
}
template <class T>
inline T __shfl_down_sync(uint32_t, T value, int offset) {
  return emulated::shuffle(value, emulated::lane() + offset);
}
template <class T>
inline T __shfl_sync(uint32_t, T value, int from) {
  return emulated::shuffle(value, from % 32);
}
template <class T>
inline T atomicAdd(T* address, T value) {
  T before = *address;
  *address = before + value;
  return before;
}
inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
template <class T>
inline T __ldcs(const T* from) {
  return *from;
}
template <class T>
inline void __stcs(T* to, T value) {
  *to = value;
}
template <class T>
inline T __ldg(const T* from) {
  return *from;
}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <class T>
inline T min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
inline T max(T a, T b) {
  return a > b ? a : b;
}
