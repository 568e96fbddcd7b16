// out = a @ b in float32 on CUDA cores with pipelined cp.async copies: optimisation steps 5 and 6.
//
// A block computes 128 x 128. K tiles of 16 k lie in STAGES buffers of shared memory; while one is multiplied, cp.async fills
// the others. A thread computes 8 x 8 elements and reads 4 k of a row of a, and 4 columns of b, by one 128-bit load:
// 16 loads for 256 multiplications. a's rows are padded to 20 floats, so that 4 neighbouring rows fall into different banks.
#include "asynchronous.cuh"
#include "tiles.cuh"

constexpr int SIDE = 128, DEPTH = 16, EACH = 8, STRIDE_A = DEPTH + 4;
constexpr int FLOATS_A = SIDE * STRIDE_A, FLOATS = FLOATS_A + DEPTH * SIDE;
constexpr int VECTOR = ALIGNED ? 4 : 1;  // floats a copy; 1 where rows do not begin at multiples of 16 bytes
static_assert(THREADS * EACH * EACH == SIDE * SIDE);

// HEIGHT x WIDTH of a matrix [rows, columns] from (row, column) on into shared rows of STRIDE floats; zeros outside.
template <int HEIGHT, int WIDTH, int STRIDE>
DEVICE void copy_tile(float* to, const float* __restrict__ from, int rows, int columns, int row, int column) {
  constexpr int PACKS = WIDTH / VECTOR;
#pragma unroll 1  // unrolled it would cost registers that the sums need
  for (int i = 0; i < HEIGHT * PACKS / THREADS; i++) {
    int index = threadIdx.x + i * THREADS, r = index / PACKS, c = index % PACKS * VECTOR;
    bool inside = row + r < rows && column + c < columns;  // a pack lies inside as a whole or not at all
    const float* source = inside ? from + static_cast<int64_t>(row + r) * columns + column + c : from;
    copy_async<4 * VECTOR>(to + r * STRIDE + c, source, inside ? 4 * VECTOR : 0);
  }
}

// `row`: of this thread's first row, `between` rows from one of its rows to the next; `column`: its first 4 columns, the other
// 4 are `apart` columns on.
struct Share {
  int row, between, column, apart;
};

DEVICE void product(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out, int M, int N, int K,
                    Share share) {
  DYNAMIC_SHARED(memory);
  float* stages = reinterpret_cast<float*>(memory);
  Tile tile = tile_at(blockIdx.x, M, N, SIDE, SIDE);
  int num_k_tiles = ceil_div(K, DEPTH);
  auto fill = [&](int k_tile) {
    float* stage = stages + k_tile % STAGES * FLOATS;
    if (k_tile < num_k_tiles) {
      copy_tile<SIDE, DEPTH, STRIDE_A>(stage, a, M, K, tile.row, k_tile * DEPTH);
      copy_tile<DEPTH, SIDE, SIDE>(stage + FLOATS_A, b, K, N, k_tile * DEPTH, tile.column);
    }
    copy_async_commit();  // an empty group behind the end keeps the count right
  };
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) fill(i);

  float sums[EACH][EACH] = {};
  for (int k_tile = 0; k_tile < num_k_tiles; k_tile++) {
    copy_async_wait<STAGES - 2>();
    __syncthreads();  // this K tile is there for everybody, and nobody reads the one that is filled next
    fill(k_tile + STAGES - 1);
    const float* tile_a = stages + k_tile % STAGES * FLOATS + share.row * STRIDE_A;
    const float* tile_b = stages + k_tile % STAGES * FLOATS + FLOATS_A + share.column;
#pragma unroll 1  // unrolled, the loads of all k would come first and take more than the 128 registers of two blocks
    for (int k = 0; k < DEPTH; k += 4) {
      float4 from_a[EACH];
#pragma unroll
      for (int i = 0; i < EACH; i++)
        from_a[i] = *reinterpret_cast<const float4*>(tile_a + i * share.between * STRIDE_A + k);
#pragma unroll
      for (int l = 0; l < 4; l++) {
        float4 left = *reinterpret_cast<const float4*>(tile_b + (k + l) * SIDE);
        float4 right = *reinterpret_cast<const float4*>(tile_b + (k + l) * SIDE + share.apart);
        float from_b[EACH] = {left.x, left.y, left.z, left.w, right.x, right.y, right.z, right.w};
#pragma unroll
        for (int i = 0; i < EACH; i++) {
          float value = l == 0 ? from_a[i].x : l == 1 ? from_a[i].y : l == 2 ? from_a[i].z : from_a[i].w;
#pragma unroll
          for (int j = 0; j < EACH; j++) sums[i][j] += value * from_b[j];
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < EACH; i++)
#pragma unroll
    for (int part = 0; part < 2; part++) {
      int row = tile.row + share.row + i * share.between, column = tile.column + share.column + part * share.apart;
      if (row >= M) continue;
      float* to = out + static_cast<int64_t>(row) * N + column;
      const float* from = sums[i] + 4 * part;
      if (ALIGNED && column < N)  // N is a multiple of 4
        *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
      if (!ALIGNED)
#pragma unroll
        for (int j = 0; j < 4; j++)
          if (column + j < N) to[j] = from[j];
    }
}

// Step 5. Threads as a square of 16 x 16, 8 rows in a row each: a warp covers 16 x 128 and reads 144 floats a k.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
matmul_vector(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out, int M, int N, int K) {
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  product(a, b, out, M, N, K, {y * EACH, 1, x * 4, SIDE / 2});
}

// Step 6. A warp covers 32 x 64 with 4 x 8 threads: 96 floats a k, in fewer distinct rows a load.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
matmul_warp(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out, int M, int N, int K) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  product(a, b, out, M, N, K, {warp / 2 * 32 + lane / 8, 4, warp % 2 * 64 + lane % 8 * 4, 32});
}
