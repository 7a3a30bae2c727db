#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "launch/process/device.h"
#include "models/torch/device_engine.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/run/problem.h"

namespace kt {

/// Predicts on a device: rows are gathered there, and scores come back. Threads that call it take turns.
class DevicePredictor final : public Predictor {
 public:
  struct Table {
    bool of_users;
    int64_t rows_begin, cols;  ///< `rows` begins with row `rows_begin`
    const float* rows;
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
                  DeviceStream& stream);
  void predict(std::span<const int32_t> users, std::span<const int32_t> items,
               std::span<float> out) const override;

 private:
  /// What a block of rows needs. Shapes: n rows, at most `most`.
  struct Block {
    explicit Block(int64_t rows = 0, int64_t column_count = 0)
        : most(rows), user(rows), item(rows), columns(rows * column_count), score(rows) {}
    int64_t most;
    DeviceArray<int32_t> user, item;         // [n]
    DeviceArray<float> columns;              // [n, columns]
    DeviceArray<float> score;                // [n]
    std::vector<DeviceArray<float>> tables;  // one a table: [n, cols]
  };

  const Problem& problem_;
  const DeviceEngine& engine_;
  const Weights weights_;
  DeviceStream& stream_;
  int device_ = 0;
  mutable std::mutex mutex_;  // guards `block_` and the stream
  mutable Block block_;
};

}  // namespace kt
