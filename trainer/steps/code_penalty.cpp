#include "trainer/steps/code_penalty.h"

#include <algorithm>

namespace kt {
namespace {

double penalty_of(const Engine& engine, const CodeTable& table) {
  return engine.parameters()[table.parameter].row_penalty;
}

/// `take(row)` for each row of the table that these columns of an id look up.
template <class Take>
void for_rows(const CodeTable& table, int64_t table_rows, const float* columns, Take&& take) {
  columns += table.first_column;
  if (table.code_counts.empty())
    for (int64_t row = 0; row < table_rows; ++row)
      if (columns[row] != 0) take(row);
  int64_t first = 0;
  for (size_t k = 0; k < table.code_counts.size(); ++k) {
    take(first + static_cast<int64_t>(columns[k]));
    first += table.code_counts[k];
  }
}

}  // namespace

bool penalizes_codes(const Engine& engine, Side side) {
  return std::ranges::any_of(engine.code_tables(), [&](const CodeTable& table) {
    return table.side == side && penalty_of(engine, table) > 0;
  });
}

void penalize_codes(const Engine& engine, const Parameters& parameters, Side side,
                    const IdBatch& ids, std::span<const int32_t> counts, double scale,
                    std::span<float> leaf) {
  for (const CodeTable& table : engine.code_tables()) {
    const double penalty = penalty_of(engine, table);
    if (table.side != side || penalty == 0) continue;
    const ParameterArray& array = parameters.arrays[table.parameter];
    const int64_t cols = array.spec.cols;
    const float* values = parameters.dense.data() + array.dense_offset;
    float* gradients = leaf.data() + array.dense_offset;
    for (int64_t k = 0; k < ids.n; ++k) {
      const auto factor = static_cast<float>(2 * penalty * scale * counts[ids.row[k]]);
      for_rows(table, array.spec.rows, ids.columns + ids.row[k] * engine.column_count(side),
               [&](int64_t row) {
                 const float* __restrict__ from = values + row * cols;
                 float* __restrict__ to = gradients + row * cols;
                 for (int64_t c = 0; c < cols; ++c) to[c] += factor * from[c];
               });
    }
  }
}

}  // namespace kt
