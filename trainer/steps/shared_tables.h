#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/communicator.h"
#include "models/graph/engine.h"
#include "sharding/parameters.h"
#include "trainer/steps/computed_tables.h"

namespace kt {

/// Item tables whose items of one code share a row (SharedTable). The rows are whole on every rank, so that copying them
/// takes no other rank. Their gradients do: the owner of an item of the step tells all ranks the sum of its rows' gradients,
/// and each adds those of a code up in item order. So what travels is as long as the step has items, however many codes
/// there are, and the bits depend neither on ranks nor on threads.
class SharedTables final : public ComputedTables {
 public:
  /// Borrows everything. Shapes: columns [items, column_count], the same on all ranks.
  SharedTables(std::span<const SharedTable> tables, const float* columns, int64_t column_count,
               Parameters& parameters, Communicator& comm, ThreadPool& pool);

  void forward(std::span<const int32_t> items) override;
  void backward(std::span<const int32_t> items) override;
  double communication_s() const override { return communication_.seconds; }

 private:
  struct Table {
    ParameterArray *copies, *rows;
    std::vector<int32_t> code;  // [items]
    int64_t begin = 0;          // where its gradient is in what travels of an item
  };

  const int64_t first_item_;  // of those this rank has the rows of
  std::vector<Table> tables_;
  int64_t width_ = 1;  // floats that travel of an item: the bits of its number, then gradients
  Communicator& comm_;
  ThreadPool& pool_;
  Stopwatch communication_;
};

}  // namespace kt
