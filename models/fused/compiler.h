#pragma once

#include <cstdint>
#include <vector>

#include "models/fused/program.h"
#include "models/graph/layers.h"
#include "models/graph/objective.h"

namespace kt {

/// What is computed once for each distinct user and item of a step, and what for every row.
enum class Form {
  kRows,  ///< everything for every row: parts are the table rows
  kIds,  ///< every layer that depends on one side alone, and each side's share of a dense layer over both
};

namespace fused {

/// Of losses row by row; groups of rows have their losses taken between two passes.
constexpr RowLoss row_loss(Loss loss) {
  return loss == Loss::kSquared ? RowLoss::kSquared
         : loss == Loss::kBce   ? RowLoss::kBce
                                : RowLoss::kHuber;
}

/// The programs of a model: users, items, rows.
class CompiledModel {
 public:
  CompiledModel(const Layers& model, Form form);
  CompiledModel(const CompiledModel&) = delete;  // programs point into this
  CompiledModel& operator=(const CompiledModel&) = delete;

  const Program& users() const { return users_.program; }
  const Program& items() const { return items_.program; }
  const Program& rows() const { return rows_.program; }
  /// A batch norm of the rows: where its arrays begin in the dense weights, its numbers among `norms`.
  struct Norm {
    int64_t op, width, numbers;
    int64_t gamma, beta, mean, variance;
    double epsilon;
  };
  const std::vector<Norm>& norms() const { return norms_; }
  /// Floats of the numbers of all of them.
  int64_t norms_size() const { return norms_size_; }
  /// 2 * norms + 1, in order (Engine::train_pass).
  const std::vector<Pass>& passes() const { return passes_; }

  /// Floats a thread needs to run any of them.
  int64_t workspace_size() const { return workspace_size_; }

  /// The dense weights as the kernels want them: padded, and transposed beside. Shapes: dense [dense size], packed
  /// [packed_size()].
  void pack(const float* dense, float* packed) const;
  int64_t packed_size() const { return packed_size_; }
  /// For each of the packed weights the element of the dense ones that it is; -1: it is 0. Shapes: [packed_size()].
  std::vector<int64_t> packed_from() const;

 private:
  friend class Compiler;
  struct Code {
    std::vector<Op> ops;
    std::vector<Term> terms;
    std::vector<Output> outputs;
    std::vector<Field> fields;
    int64_t size = 0;  // of its buffers
    Program program;
  };
  /// [in, out] of the dense weights at `from`, to [in, padded(out)] at `straight` and its transpose.
  struct Packing {
    int64_t from, in, out, straight, transposed;  // transposed -1: a bias
  };

  /// `put(to, from)` for each packed weight that is a dense one.
  template <class Put>
  void each_packed(Put&& put) const;

  Code users_, items_, rows_;
  std::vector<Norm> norms_;
  int64_t norms_size_ = 0;
  std::vector<Pass> passes_;
  std::vector<Packing> packings_;
  int64_t packed_size_ = 0;
  int64_t workspace_size_ = 0;
};

}  // namespace fused
}  // namespace kt
