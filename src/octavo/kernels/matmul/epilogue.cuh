// Epilogue of the tensor-core matmuls: bias and activation on the sums (fused_gemm) or nothing (matmul), rounding, paired store.
#pragma once
#include "octavo.cuh"

// Two neighbouring elements of a row. `even`: N is even, so both exist and their address is a multiple of 4 bytes.
template <bool EVEN>
DEVICE void finish(T* __restrict__ out, const T* __restrict__ bias, int N, int row, int column, float first, float second) {
  bool both = EVEN || column + 1 < N;
  if (BIAS) {
    first += to_float(bias[column]);
    if (both) second += to_float(bias[column + 1]);
  }
  T* to = out + static_cast<int64_t>(row) * N + column;
  first = activate<ACTIVATION, T>(first);
  second = activate<ACTIVATION, T>(second);
  if constexpr (EVEN) {
    *reinterpret_cast<uint32_t*>(to) = pack_pair(first, second, T{});
  } else {
    to[0] = from_float<T>(first);
    if (both) to[1] = from_float<T>(second);
  }
}
