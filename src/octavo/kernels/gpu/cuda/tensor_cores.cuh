// Tensor-core instructions and their CPU emulation.
//
// mma.sync (sm_80): a warp multiplies fragments that lie in its registers. wgmma (sm_90a): four warps multiply tiles that lie in
// shared memory, asynchronously. Layouts: PTX ISA, sections on mma and wgmma fragments.
#pragma once
#include "asynchronous.cuh"

#ifndef OCTAVO_EMULATED

// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8. Register j of a lane gets
// of matrix j: row lane / 4, columns 2 * (lane % 4) and the next.
DEVICE void load_matrices(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row)));
}
// As above, each matrix transposed: rows 2 * (lane % 4) and the next, column lane / 4.
DEVICE void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row)));
}

// d[16, 8] += a[16, 16] @ b[16, 8].
DEVICE void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b, bfloat16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b, float16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// Registers of this warpgroup: the producer gives back what the consumers need.
template <int COUNT>
DEVICE void registers_down() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT>
DEVICE void registers_up() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

#define FLOATS_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define FLOATS_16(d, i) FLOATS_4(d, i), FLOATS_4(d, i + 4), FLOATS_4(d, i + 8), FLOATS_4(d, i + 12)

// d[64, N] (+)= a[64, 16] @ b[16, N]; a lies along K, b along N (its rows are K): the last immediates, "trans".
#define WGMMA_128_COLUMNS(TYPE, PTX)                                                         \
  DEVICE void wgmma(float (&d)[64], uint64_t a, uint64_t b, int accumulate, TYPE) {          \
    asm volatile(                                                                            \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                         \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." PTX "." PTX "\n"                      \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,\n"           \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,\n"  \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,\n"  \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63},\n" \
        "%64, %65, p, 1, 1, 0, 1;\n}"                                                        \
        : FLOATS_16(d, 0), FLOATS_16(d, 16), FLOATS_16(d, 32), FLOATS_16(d, 48)              \
        : "l"(a), "l"(b), "r"(accumulate));                                                  \
  }
WGMMA_128_COLUMNS(bfloat16, "bf16")
WGMMA_128_COLUMNS(float16, "f16")

#define WGMMA_256_COLUMNS(TYPE, PTX)                                                                         \
  DEVICE void wgmma(float (&d)[128], uint64_t a, uint64_t b, int accumulate, TYPE) {                         \
    asm volatile(                                                                                            \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"                                                        \
        "wgmma.mma_async.sync.aligned.m64n256k16.f32." PTX "." PTX "\n"                                      \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,\n"                           \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,\n"                  \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,\n"                  \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63,\n"                  \
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79,\n"                  \
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95,\n"                  \
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111,\n"      \
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127},\n" \
        "%128, %129, p, 1, 1, 0, 1;\n}"                                                                      \
        : FLOATS_16(d, 0), FLOATS_16(d, 16), FLOATS_16(d, 32), FLOATS_16(d, 48),                             \
          FLOATS_16(d, 64), FLOATS_16(d, 80), FLOATS_16(d, 96), FLOATS_16(d, 112)                            \
        : "l"(a), "l"(b), "r"(accumulate));                                                                  \
  }
WGMMA_256_COLUMNS(bfloat16, "bf16")
WGMMA_256_COLUMNS(float16, "f16")

#else  // emulated

DEVICE void load_matrices_(uint32_t (&out)[4], const void* row, bool transposed) {
  const void* const* rows = emulated::exchange(row);
  const void* kept[32];
  std::memcpy(kept, rows, sizeof kept);
  unsigned r = emulated::lane() / 4, c = emulated::lane() % 4 * 2;
  for (int j = 0; j < 4; j++) {
    auto element = [&](unsigned row, unsigned column) {
      return static_cast<uint32_t>(static_cast<const uint16_t*>(kept[8 * j + row])[column]);
    };
    out[j] = transposed ? element(c, r) | element(c + 1, r) << 16 : element(r, c) | element(r, c + 1) << 16;
  }
  __syncwarp();  // the matrices are read when the instruction is done
}
DEVICE void load_matrices(uint32_t (&out)[4], const void* row) { load_matrices_(out, row, false); }
DEVICE void load_matrices_transposed(uint32_t (&out)[4], const void* row) { load_matrices_(out, row, true); }

template <class T>
DEVICE float element_of(uint32_t pair, unsigned which) {
  return to_float(T{static_cast<uint16_t>(pair >> 16 * which)});
}

template <class T>
DEVICE void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b, T) {
  struct Fragments {
    uint32_t a[4], b[2];
  } mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const Fragments* all = emulated::exchange(mine);
  unsigned group = emulated::lane() / 4, pair = emulated::lane() % 4;
  for (unsigned i = 0; i < 4; i++) {
    unsigned row = group + i / 2 * 8, column = 2 * pair + i % 2;
    for (unsigned k = 0; k < 16; k++)
      d[i] += element_of<T>(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2) *
              element_of<T>(all[column * 4 + k % 8 / 2].b[k / 8], k % 2);
  }
}

DEVICE void wgmma_fence() {}
DEVICE void wgmma_commit() {}
template <int PENDING>
DEVICE void wgmma_wait() {}
template <int COUNT>
DEVICE void registers_down() {}
template <int COUNT>
DEVICE void registers_up() {}

// Every thread computes its own part of d from the tiles that the descriptors name; see tile_descriptor.
template <class T, int COUNT>
DEVICE void wgmma(float (&d)[COUNT], uint64_t a, uint64_t b, int accumulate, T) {
  auto field = [](uint64_t descriptor, int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4; };
  if (a >> 62 != 1 || b >> 62 != 1) emulated::fail("a descriptor without the 128-byte swizzle");
  auto read = [](uint32_t address) {
    return to_float(*reinterpret_cast<const T*>(emulated::block.shared + emulated::swizzle_128(address)));
  };
  unsigned thread = threadIdx.x % 128, first = thread / 32 * 16 + thread % 32 / 4, pair = thread % 4;
  float rows[2][16];
  for (int part = 0; part < 2; part++)
    for (int k = 0; k < 16; k++) {
      unsigned row = first + part * 8;
      rows[part][k] = read(field(a, 0) + row / 8 * field(a, 32) + row % 8 * 128 + k * 2);
    }
  for (int i = 0; i < COUNT; i += 4)
    for (int odd = 0; odd < 2; odd++) {
      unsigned column = i * 2 + pair * 2 + odd;
      float sums[2] = {};
      for (unsigned k = 0; k < 16; k++) {
        float value = read(field(b, 0) + column / 64 * field(b, 16) + column % 64 * 2 + k % 8 * 128 + k / 8 * field(b, 32));
        sums[0] += rows[0][k] * value;
        sums[1] += rows[1][k] * value;
      }
      d[i + odd] = (accumulate ? d[i + odd] : 0.0f) + sums[0];
      d[i + 2 + odd] = (accumulate ? d[i + 2 + odd] : 0.0f) + sums[1];
    }
}

#endif

// A tile in shared memory with the 128-byte swizzle, as the copy engine writes it: rows of 128 bytes in groups of 8.
// `group_stride`: bytes from 8 rows to the next 8; `block_stride`: where rows run along N, from 64 columns to the next 64.
DEVICE uint64_t tile_descriptor(const void* tile, int block_stride, int group_stride) {
  uint64_t descriptor = (shared_address(tile) & 0x3ffff) >> 4;
  descriptor |= static_cast<uint64_t>(block_stride >> 4) << 16;
  descriptor |= static_cast<uint64_t>(group_stride >> 4) << 32;
  return descriptor | 1ull << 62;
}
