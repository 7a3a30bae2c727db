#include "trainer/steps/shared_tables.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "sharding/gather_shards.h"

namespace kt {

SharedTables::SharedTables(std::span<const SharedTable> tables, const float* columns,
                           int64_t column_count, Parameters& parameters, Communicator& comm,
                           ThreadPool& pool)
    : first_item_(parameters.held_items().begin), comm_(comm), pool_(pool) {
  for (const SharedTable& shared : tables) {
    Table table{.copies = &parameters.arrays[shared.parameter],
                .rows = &parameters.find(shared.rows.name),
                .code = {},
                .begin = width_};
    // No optimizer changes them, so they have none yet.
    table.copies->gradient.resize(table.copies->value.size());
    for (int64_t item = 0; item < table.copies->spec.rows; ++item)
      table.code.push_back(static_cast<int32_t>(columns[item * column_count + shared.column]));
    width_ += shared.rows.cols;
    tables_.push_back(std::move(table));
  }
}

void SharedTables::forward(std::span<const int32_t> items) {
  pool_.parallel_for(std::ssize(tables_), [&](int64_t k, int) {
    const Table& table = tables_[k];
    const int64_t cols = table.rows->spec.cols;
    for (const int32_t item : items)
      std::copy_n(table.rows->value.data() + table.code[first_item_ + item] * cols, cols,
                  table.copies->value.data() + item * cols);
  });
}

void SharedTables::backward(std::span<const int32_t> items) {
  std::vector<float> own;
  own.reserve(items.size() * width_);
  for (const int32_t item : items) {
    own.push_back(std::bit_cast<float>(static_cast<int32_t>(first_item_ + item)));
    for (const Table& table : tables_) {
      const int64_t cols = table.rows->spec.cols;
      const float* gradient = table.copies->gradient.data() + item * cols;
      own.insert(own.end(), gradient, gradient + cols);
    }
  }
  // Owners have their items ascending, and so have ranks.
  std::vector<float> all;
  communication_.time([&] { all = gather_to_all<float>(own, comm_); });
  pool_.parallel_for(std::ssize(tables_), [&](int64_t k, int) {
    const Table& table = tables_[k];
    const int64_t cols = table.rows->spec.cols;
    for (const float* of_item = all.data(); of_item != all.data() + all.size(); of_item += width_) {
      const int32_t code = table.code[std::bit_cast<int32_t>(*of_item)];
      const float* gradient = of_item + table.begin;
      float* sum = table.rows->gradient.data() + code * cols;
      if (!std::exchange(table.rows->touched[code], uint8_t{1}))
        std::copy_n(gradient, cols, sum);
      else
        for (int64_t c = 0; c < cols; ++c) sum[c] += gradient[c];
    }
  });
}

}  // namespace kt
