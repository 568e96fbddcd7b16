// out = a @ b on tensor cores by mma.sync (sm_80 and later), bfloat16 or float16, summed in float32: optimisation step 7.
//
// A block of 4 warps computes 128 x 128, a warp 64 x 64 (128 sums a thread). K tiles of 32 k lie in STAGES buffers that cp.async
// fills ahead. A 16-byte chunk of a row is stored at its number XOR the row's: ldmatrix, which reads 8 rows at one chunk, then
// meets 8 different groups of banks, and no padding is needed.
#include "epilogue.cuh"
#include "tensor_cores.cuh"
#include "tiles.cuh"

constexpr int SIDE = 128, DEPTH = 32, CHUNK = 8, WARP_SIDE = 64;
constexpr int TILE = SIDE * DEPTH;  // elements of either tile
constexpr int A_TILES = WARP_SIDE / 16, B_TILES = WARP_SIDE / 8;
static_assert(THREADS == 128);

// Where chunk `chunk` of row `row` lies. Rows of a have 4 chunks: two of them fill the 32 banks.
DEVICE int place_a(int row, int chunk) { return row * DEPTH + (chunk ^ row / 2 % 4) * CHUNK; }
DEVICE int place_b(int row, int chunk) { return row * SIDE + (chunk ^ row % 8) * CHUNK; }

// One chunk of a matrix [height, width] to shared memory, zeros outside. Not ALIGNED: element by element, and it waits.
DEVICE void copy_chunk(T* to, const T* __restrict__ from, int height, int width, int row, int column) {
  bool inside = row < height && column < width;
  const T* source = inside ? from + static_cast<int64_t>(row) * width + column : from;
  if constexpr (ALIGNED) {
    copy_async<16>(to, source, inside ? 16 : 0);  // width is a multiple of 8: a chunk lies inside as a whole or not at all
  } else {
    Pack<T> pack;
#pragma unroll
    for (int i = 0; i < CHUNK; i++)
      if (inside && column + i < width) pack.values[i] = source[i];
    store_pack(to, pack);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
matmul_mma(const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias, T* __restrict__ out, int M, int N,
           int K) {
  DYNAMIC_SHARED(memory);
  T* stages = reinterpret_cast<T*>(memory);
  a += static_cast<int64_t>(blockIdx.y) * M * K;  // of several products of one size, each behind the other; else 0
  b += static_cast<int64_t>(blockIdx.y) * K * N;
  out += static_cast<int64_t>(blockIdx.y) * M * N;
  Tile tile = tile_at(blockIdx.x, M, N, SIDE, SIDE);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, num_k_tiles = ceil_div(K, DEPTH);
  int warp_row = warp / 2 * WARP_SIDE, warp_column = warp % 2 * WARP_SIDE;

  auto fill = [&](int k_tile) {
    T* stage = stages + k_tile % STAGES * 2 * TILE;
    if (k_tile < num_k_tiles) {
#pragma unroll(ALIGNED ? 4 : 1)
      for (int i = 0; i < TILE / CHUNK / THREADS; i++) {
        int index = threadIdx.x + i * THREADS;
        int row = index / (DEPTH / CHUNK), chunk = index % (DEPTH / CHUNK);
        copy_chunk(stage + place_a(row, chunk), a, M, K, tile.row + row, k_tile * DEPTH + chunk * CHUNK);
        int k = index / (SIDE / CHUNK), across = index % (SIDE / CHUNK);
        copy_chunk(stage + TILE + place_b(k, across), b, K, N, k_tile * DEPTH + k, tile.column + across * CHUNK);
      }
    }
    copy_async_commit();
  };
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) fill(i);

  float sums[A_TILES][B_TILES][4] = {};
  for (int k_tile = 0; k_tile < num_k_tiles; k_tile++) {
    copy_async_wait<STAGES - 2>();
    __syncthreads();  // this K tile is there for everybody, and nobody reads the one that is filled next
    fill(k_tile + STAGES - 1);
    const T* tile_a = stages + k_tile % STAGES * 2 * TILE;
    const T* tile_b = tile_a + TILE;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
      uint32_t from_a[A_TILES][4], from_b[B_TILES / 2][4];
      // Matrices 0 and 1 are rows 0-7 and 8-15, 2 and 3 the same 8 columns on: as mma wants a, and b (there rows are k).
      int row = lane % 16, right = lane / 16;
#pragma unroll
      for (int i = 0; i < A_TILES; i++)
        load_matrices(from_a[i], tile_a + place_a(warp_row + i * 16 + row, k / CHUNK + right));
#pragma unroll
      for (int j = 0; j < B_TILES / 2; j++)
        load_matrices_transposed(from_b[j], tile_b + place_b(k + row, warp_column / CHUNK + 2 * j + right));
#pragma unroll
      for (int i = 0; i < A_TILES; i++)
#pragma unroll
        for (int j = 0; j < B_TILES; j++) mma(sums[i][j], from_a[i], from_b[j / 2] + j % 2 * 2, T{});
    }
  }

#pragma unroll
  for (int i = 0; i < A_TILES; i++)
#pragma unroll
    for (int j = 0; j < B_TILES; j++)
#pragma unroll
      for (int part = 0; part < 2; part++) {
        int row = tile.row + warp_row + i * 16 + lane / 4 + part * 8;
        int column = tile.column + warp_column + j * 8 + lane % 4 * 2;
        if (row < M && column < N)
          finish<ALIGNED>(out, bias, N, row, column, sums[i][j][2 * part], sums[i][j][2 * part + 1]);
      }
}
