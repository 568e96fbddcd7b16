// out = a @ b on Hopper's tensor cores: wgmma on tiles that TMA copies to shared memory, warp-specialised: optimisation step 8.
//
// One block a multiprocessor stays and takes tile after tile of 128 x COLUMNS. One warpgroup only copies: a single thread asks
// TMA for K tiles of 64 k, a[128, 64] and b[64, COLUMNS], STAGES ahead. Two warpgroups multiply, 64 x COLUMNS each, whose sums
// lie in COLUMNS / 2 registers a thread. Two barriers a stage: `full` counts the bytes that have come, `empty` the warps that
// have read. Rows of a and b have to begin at multiples of 16 bytes (TMA's rule): other matrices take matmul_mma.
#include "epilogue.cuh"
#include "tensor_cores.cuh"
#include "tiles.cuh"

constexpr int ROWS = 128, DEPTH = 64, CONSUMERS = 2, GROUP = 128;
constexpr int BYTES_A = ROWS * DEPTH * 2, BYTES_B = DEPTH * COLUMNS * 2, BYTES = BYTES_A + BYTES_B;
constexpr int ROW_BYTES = 128, CORE = 8 * ROW_BYTES;  // the swizzle's pattern: 8 rows of 128 bytes
constexpr int BOX_B = DEPTH * ROW_BYTES;              // 64 columns of b
static_assert(THREADS == (1 + CONSUMERS) * GROUP);

struct Ring {  // which stage, and how often it has been around
  int stage = 0;
  uint32_t phase = 0;
  DEVICE void next() {
    if (++stage == STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
};

DEVICE void produce(const TensorMap* a, const TensorMap* b, unsigned char* stages, uint64_t* full, uint64_t* empty, int M, int N,
                    int K) {
  int tiles = ceil_div(M, ROWS) * ceil_div(N, COLUMNS), num_k_tiles = ceil_div(K, DEPTH);
  Ring ring;
  for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
    Tile tile = tile_at(index, M, N, ROWS, COLUMNS);
    for (int k_tile = 0; k_tile < num_k_tiles; k_tile++, ring.next()) {
      unsigned char* stage = stages + ring.stage * BYTES;
      barrier_wait(empty + ring.stage, ring.phase ^ 1);  // the first time round passes at once
      barrier_expect(full + ring.stage, BYTES);
      copy_tensor(stage, a, tile.row, k_tile * DEPTH, full + ring.stage);
#pragma unroll
      for (int i = 0; i < COLUMNS / 64; i++)
        copy_tensor(stage + BYTES_A + i * BOX_B, b, k_tile * DEPTH, tile.column + i * 64, full + ring.stage);
    }
  }
}

DEVICE void consume(unsigned char* stages, uint64_t* full, uint64_t* empty, const T* bias, T* out, int M, int N, int K) {
  int tiles = ceil_div(M, ROWS) * ceil_div(N, COLUMNS), num_k_tiles = ceil_div(K, DEPTH);
  int group = threadIdx.x / GROUP - 1, lane = threadIdx.x % WARP, warp = threadIdx.x % GROUP / WARP;
  Ring ring;
  for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
    Tile tile = tile_at(index, M, N, ROWS, COLUMNS);
    float sums[COLUMNS / 2];
    int before = 0;
    for (int k_tile = 0; k_tile < num_k_tiles; k_tile++) {
      unsigned char* stage = stages + ring.stage * BYTES;
      barrier_wait(full + ring.stage, ring.phase);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < DEPTH / 16; k++) {
        uint64_t rows = tile_descriptor(stage + group * 64 * ROW_BYTES + k * 32, 16, CORE);
        uint64_t columns = tile_descriptor(stage + BYTES_A + k * 2 * CORE, BOX_B, CORE);
        wgmma(sums, rows, columns, k_tile | k, T{});  // the very first one overwrites
      }
      wgmma_commit();
      wgmma_wait<1>();  // the K tile before this one is multiplied
      if (k_tile && lane == 0) barrier_arrive(empty + before);
      before = ring.stage;
      ring.next();
    }
    wgmma_wait<0>();
    if (lane == 0) barrier_arrive(empty + before);
#pragma unroll
    for (int i = 0; i < COLUMNS / 8; i++)
#pragma unroll
      for (int part = 0; part < 2; part++) {
        int row = tile.row + group * 64 + warp * 16 + lane / 4 + part * 8, column = tile.column + i * 8 + lane % 4 * 2;
        if (row < M && column < N) finish<true>(out, bias, N, row, column, sums[4 * i + 2 * part], sums[4 * i + 2 * part + 1]);
      }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
matmul_wgmma(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const T* __restrict__ bias,
             T* __restrict__ out, int M, int N, int K) {
  DYNAMIC_SHARED(stages);
  uint64_t* full = reinterpret_cast<uint64_t*>(stages + STAGES * BYTES);
  uint64_t* empty = full + STAGES;
  if (threadIdx.x == 0) {
    prefetch_map(&a);
    prefetch_map(&b);
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, CONSUMERS * GROUP / WARP);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < GROUP) {
    registers_down<40>();
    if (threadIdx.x == 0) produce(&a, &b, stages, full, empty, M, N, K);
  } else {
    registers_up<232>();
    consume(stages, full, empty, bias, out, M, N, K);
  }
}
