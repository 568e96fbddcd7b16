// Tile order of the matmul kernels: block index -> tile of the result, in bands that reuse rows and columns from L2.
#pragma once
#include "octavo.cuh"

struct Tile {
  int row, column;  // of the result, in elements
};

// Tiles in bands of BAND rows of tiles, down the band first: blocks that run at the same time then share rows of a and columns
// of b in the L2 cache. 132 blocks at 128 x 128 read (8 + 17) stripes in a band of 8, and 1 + 132 in plain order.
DEVICE Tile tile_at(int index, int rows, int columns, int tile_rows, int tile_columns) {
  constexpr int BAND = 8;
  int down = ceil_div(rows, tile_rows), across = ceil_div(columns, tile_columns);
  int band = index / (BAND * across), height = min(BAND, down - band * BAND), within = index - band * BAND * across;
  return {(band * BAND + within % height) * tile_rows, within / height * tile_columns};
}
