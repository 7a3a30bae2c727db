#include <algorithm>
#include <utility>

#include "launch/base/errors.h"
#include "trainer/devices/device_predictor.h"
#include "trainer/devices/kernels.h"

namespace kt {

void DevicePredictor::predict(const Pairs& pairs, ThreadPool&, std::span<float> out) const {
  KT_CHECK(std::ssize(out) == pairs.size());
  int64_t most = 0;
  for (int64_t b = 0; b < pairs.block_count(); ++b) most = std::max(most, pairs.block(b).size());
  Block block(most, problem_.engine->column_count(Side::kItem));
  for (const Table& table : weights_.tables) block.tables.emplace_back(most * table.cols);
  for (int64_t b = 0; b < pairs.block_count(); ++b) {
    const Range range = pairs.block(b);
    predict_block(pairs.users_of(b), std::span(pairs.item).subspan(range.begin, range.size()),
                  block, out.subspan(range.begin, range.size()));
  }
}

void DevicePredictor::predict_block(std::span<const int32_t> users, std::span<const int32_t> items,
                                    Block& block, std::span<float> out) const {
  const auto n = std::ssize(items);
  const int64_t columns = problem_.engine->column_count(Side::kItem);
  block.user.upload(users, stream_);
  block.item.upload(items, stream_);
  LeafInput input{.rows = n, .dense = weights_.dense};
  for (size_t t = 0; t < weights_.tables.size(); ++t) {
    const Table& table = weights_.tables[t];
    float* rows = block.tables[t].data();
    for_each(n * table.cols, stream_,
             kernel::GatherRows{table.rows, table.of_users ? block.user.data() : block.item.data(),
                                0, table.cols, rows});
    input.tables.emplace_back(rows, static_cast<size_t>(n * table.cols));
  }
  for_each(
      n * columns, stream_,
      kernel::GatherRows{weights_.columns, block.item.data(), 0, columns, block.columns.data()});
  input.columns = {block.columns.data(), static_cast<size_t>(n * columns)};
  engine_.predict(input, {block.score.data(), static_cast<size_t>(n)}, stream_.handle());
  block.score.download(out, stream_);
  // Not by the communicator, which is for steps: a device that hangs is the watchdog's, as any work is.
  check_cuda(cudaStreamSynchronize(stream_), "prediction");
}

}  // namespace kt
