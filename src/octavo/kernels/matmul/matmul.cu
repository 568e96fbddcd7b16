// out = a @ b on CUDA cores, optimisation steps 1 to 4 (naive, coalesced, shared memory, register tile).
//
// a[M, K], b[K, N], out[M, N] row-major, summed in float32. Any shape: what lies outside is read as 0 and not written. Offsets
// are 64 bits wide.
#include "tiles.cuh"

DEVICE int64_t at(int row, int column, int width) { return static_cast<int64_t>(row) * width + column; }

// One thread computes one element from global memory.
DEVICE void one_element(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ out, int M, int N, int K, int row,
                        int column) {
  if (row >= M || column >= N) return;
  float sum = 0.0f;
  for (int k = 0; k < K; k++) sum += to_float(a[at(row, k, K)]) * to_float(b[at(k, column, N)]);
  out[at(row, column, N)] = from_float<T>(sum);
}

// Step 1. Blocks of 32 x 8 elements; neighbouring threads take neighbouring ROWS: a warp's 32 loads of a, and its stores, lie a
// whole row apart, each in a sector of its own.
extern "C" __global__ void __launch_bounds__(THREADS)
matmul_naive(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ out, int M, int N, int K) {
  Tile tile = tile_at(blockIdx.x, M, N, WARP, THREADS / WARP);
  one_element(a, b, out, M, N, K, tile.row + threadIdx.x % WARP, tile.column + threadIdx.x / WARP);
}

// Step 2. Neighbouring threads take neighbouring COLUMNS: a warp reads one element of a, and 128 bytes of b in a row.
extern "C" __global__ void __launch_bounds__(THREADS)
matmul_coalesced(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ out, int M, int N, int K) {
  Tile tile = tile_at(blockIdx.x, M, N, THREADS / WARP, WARP);
  one_element(a, b, out, M, N, K, tile.row + threadIdx.x / WARP, tile.column + threadIdx.x % WARP);
}

// Step 3. A block loads tiles of 32 x 32 of a and b once and uses each element 32 times from shared memory.
extern "C" __global__ void __launch_bounds__(THREADS)
matmul_shared(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ out, int M, int N, int K) {
  constexpr int SIDE = 32;
  __shared__ float tile_a[SIDE][SIDE];
  __shared__ float tile_b[SIDE][SIDE];
  Tile tile = tile_at(blockIdx.x, M, N, SIDE, SIDE);
  int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE, row = tile.row + y, column = tile.column + x;
  float sum = 0.0f;
  for (int begin = 0; begin < K; begin += SIDE) {
    tile_a[y][x] = row < M && begin + x < K ? to_float(a[at(row, begin + x, K)]) : 0.0f;
    tile_b[y][x] = begin + y < K && column < N ? to_float(b[at(begin + y, column, N)]) : 0.0f;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < SIDE; k++) sum += tile_a[y][k] * tile_b[k][x];
    __syncthreads();
  }
  if (row < M && column < N) out[at(row, column, N)] = from_float<T>(sum);
}

// Step 4. A thread computes 8 x 8 elements: 16 loads from shared memory serve 64 multiplications.
extern "C" __global__ void __launch_bounds__(THREADS)
matmul_register(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ out, int M, int N, int K) {
  constexpr int SIDE = 128, DEPTH = 8, EACH = 8, LOADS = SIDE * DEPTH / THREADS;
  __shared__ float tile_a[DEPTH][SIDE + 4];  // a lies transposed; the 4 spread the 8 k of a row over all banks
  __shared__ float tile_b[DEPTH][SIDE];
  Tile tile = tile_at(blockIdx.x, M, N, SIDE, SIDE);
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  float sums[EACH][EACH] = {};
  for (int begin = 0; begin < K; begin += DEPTH) {
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      int index = threadIdx.x + i * THREADS;
      int m = index / DEPTH, ka = index % DEPTH, kb = index / SIDE, n = index % SIDE;
      bool in_a = tile.row + m < M && begin + ka < K, in_b = begin + kb < K && tile.column + n < N;
      tile_a[ka][m] = in_a ? to_float(a[at(tile.row + m, begin + ka, K)]) : 0.0f;
      tile_b[kb][n] = in_b ? to_float(b[at(begin + kb, tile.column + n, N)]) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      float from_a[EACH], from_b[EACH];
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        from_a[i] = tile_a[k][y * EACH + i];
        from_b[i] = tile_b[k][x + i * 16];
      }
#pragma unroll
      for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++) sums[i][j] += from_a[i] * from_b[j];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < EACH; i++)
#pragma unroll
    for (int j = 0; j < EACH; j++) {
      int row = tile.row + y * EACH + i, column = tile.column + x + j * 16;
      if (row < M && column < N) out[at(row, column, N)] = from_float<T>(sums[i][j]);
    }
}
