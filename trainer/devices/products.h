#pragma once

#include <cmath>
#include <cstdint>

#include "launch/base/host_device.h"
#include "launch/base/team.h"

/// Products of matrices on devices, by tiles: each element is one chain of fused multiply-adds in the order of its sum, as
/// in models/fused/dense_tiles.h, however it is cut.
namespace kt::kernel {

/// Element (r, c) is data[row[r] * row_stride + c * column_stride]; without `row`, r itself.
struct Matrix {
  const float* data;
  int64_t row_stride, column_stride = 1;
  const int32_t* row = nullptr;
  KT_HOST_DEVICE float at(int64_t r, int64_t c) const {
    return data[(row ? row[r] : r) * row_stride + c * column_stride];
  }
};

/// result(r, c) = [start[c] or 0] + sum over k of a(r, k) b(k, c).
struct Product {
  int64_t rows, columns, depth;
  Matrix a, b;
  const float* start = nullptr;  // [columns]
};

inline constexpr int kTileRows = 64, kTileColumns = 128;  // of a team
inline constexpr int kTileDepth = 32;                     // of what it has at a time
inline constexpr int kPiece = 4;                          // rows and columns of a thread

struct TileMemory {
  float a[kTileDepth][kTileRows], b[kTileDepth][kTileColumns];
  float sums[kTileRows][kTileColumns];
};

/// Teams of a product.
KT_HOST_DEVICE constexpr int64_t column_tiles(int64_t columns) {
  return (columns + kTileColumns - 1) / kTileColumns;
}
KT_HOST_DEVICE constexpr int64_t tiles_of(int64_t rows, int64_t columns) {
  return (rows + kTileRows - 1) / kTileRows * column_tiles(columns);
}

/// end(r, c, result) for the elements of a tile.
template <class End>
KT_HOST_DEVICE void product_tile(const Team& team, const Product& p, int64_t tile, void* shared,
                                 End&& end) {
  TileMemory& m = *static_cast<TileMemory*>(shared);
  const int64_t first_row = tile / column_tiles(p.columns) * kTileRows,
                first_column = tile % column_tiles(p.columns) * kTileColumns;
  const auto smaller = [](int64_t a, int64_t b) { return static_cast<int>(a < b ? a : b); };
  const int rows = smaller(kTileRows, p.rows - first_row),
            columns = smaller(kTileColumns, p.columns - first_column);
  const int pieces_down = (rows + kPiece - 1) / kPiece,
            pieces_across = (columns + kPiece - 1) / kPiece;

  team.each(kTileRows, kTileColumns, [&](int r, int c) {
    m.sums[r][c] = p.start && c < columns ? p.start[first_column + c] : 0.f;
  });
  for (int64_t first = 0; first < p.depth; first += kTileDepth) {
    const int depth = smaller(kTileDepth, p.depth - first);
    // The threads of a team read what is side by side.
    const bool a_along_rows = p.a.column_stride != 1, b_along_rows = p.b.column_stride != 1;
    team.each(kTileRows * kTileDepth, [&](int e) {
      const int r = a_along_rows ? e % kTileRows : e / kTileDepth,
                k = a_along_rows ? e / kTileRows : e % kTileDepth;
      m.a[k][r] = r < rows && k < depth ? p.a.at(first_row + r, first + k) : 0.f;
    });
    team.each(kTileColumns * kTileDepth, [&](int e) {
      const int c = b_along_rows ? e / kTileDepth : e % kTileColumns,
                k = b_along_rows ? e % kTileDepth : e / kTileColumns;
      m.b[k][c] = c < columns && k < depth ? p.b.at(first + k, first_column + c) : 0.f;
    });
    team.each(pieces_down, pieces_across, [&](int down, int across) {
      const int r = down * kPiece, c = across * kPiece;
      float sum[kPiece][kPiece];
      for (int i = 0; i < kPiece; ++i)
        for (int j = 0; j < kPiece; ++j) sum[i][j] = m.sums[r + i][c + j];
      for (int k = 0; k < depth; ++k)
        for (int i = 0; i < kPiece; ++i)
          for (int j = 0; j < kPiece; ++j)
            sum[i][j] = fmaf(m.a[k][r + i], m.b[k][c + j], sum[i][j]);
      for (int i = 0; i < kPiece; ++i)
        for (int j = 0; j < kPiece; ++j) m.sums[r + i][c + j] = sum[i][j];
    });
  }
  team.each(rows, columns,
            [&](int r, int c) { end(first_row + r, first_column + c, m.sums[r][c]); });
}

/// A product; what becomes of its elements is `End`'s. Over its tiles.
template <class End>
struct RunProduct {
  Product product;
  End end;
  KT_HOST_DEVICE void operator()(const Team& team, int64_t tile, void* shared) const {
    product_tile(team, product, tile, shared, end);
  }
};

/// to[r][c], rows placed as those of a matrix.
struct StoreElement {
  float* to;
  int64_t row_stride;
  const int32_t* row = nullptr;
  KT_HOST_DEVICE void operator()(int64_t r, int64_t c, float value) const {
    to[(row ? row[r] : r) * row_stride + c] = value;
  }
};

}  // namespace kt::kernel
