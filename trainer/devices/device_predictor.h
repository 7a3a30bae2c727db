#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "launch/process/device.h"
#include "models/torch/device_engine.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/run/problem.h"

namespace kt {

/// Predicts on a device by libtorch: a block's rows are gathered there, and scores come back.
class DevicePredictor final : public Predictor {
 public:
  struct Table {
    bool of_users;
    int64_t cols;
    const float* rows;  ///< of this rank's users, or of all items
  };
  /// What is predicted with. Device memory.
  struct Weights {
    std::vector<Table> tables;                  ///< as LeafInput::tables
    std::vector<std::span<const float>> dense;  ///< as LeafInput::dense
    const float* columns;                       ///< [items, column_count]
    std::vector<DeviceArray<float>> own;        ///< item tables in full that exist for this alone
  };

  /// Of this thread's device. All but `weights` is borrowed. While it is used, nothing else is enqueued on `stream`.
  DevicePredictor(const Problem& problem, const DeviceEngine& engine, Weights weights,
                  DeviceStream& stream)
      : problem_(problem), engine_(engine), weights_(std::move(weights)), stream_(stream) {}
  void predict(const Pairs& pairs, ThreadPool& pool, std::span<float> out) const override;

 private:
  /// What a block of up to n rows needs.
  struct Block {
    Block(int64_t rows, int64_t column_count)
        : user(rows), item(rows), columns(rows * column_count), score(rows) {}
    DeviceArray<int32_t> user, item;         // [n]
    DeviceArray<float> columns;              // [n, columns]
    DeviceArray<float> score;                // [n]
    std::vector<DeviceArray<float>> tables;  // one a table: [n, cols]
  };

  /// Waits for it. Shapes: users rows of the tables, items, out [n].
  void predict_block(std::span<const int32_t> users, std::span<const int32_t> items, Block& block,
                     std::span<float> out) const;

  const Problem& problem_;
  const DeviceEngine& engine_;
  const Weights weights_;
  DeviceStream& stream_;
};

}  // namespace kt
