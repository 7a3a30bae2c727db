#include <algorithm>
#include <utility>

#include "launch/base/errors.h"
#include "trainer/devices/device_predictor.h"
#include "trainer/devices/kernels.h"

namespace kt {

DevicePredictor::DevicePredictor(const Problem& problem, const DeviceEngine& engine,
                                 Weights weights, DeviceStream& stream)
    : problem_(problem), engine_(engine), weights_(std::move(weights)), stream_(stream) {
  check_cuda(cudaGetDevice(&device_), "cudaGetDevice");
}

void DevicePredictor::predict(std::span<const int32_t> users, std::span<const int32_t> items,
                              std::span<float> out) const {
  const auto n = std::ssize(items);
  const int64_t columns = problem_.engine->column_count(Side::kItem);
  KT_CHECK(std::ssize(users) == n && std::ssize(out) == n);
  if (n == 0) return;
  std::vector<int32_t> user_rows;
  for (const int32_t user : users)
    user_rows.push_back(static_cast<int32_t>(problem_.user_row[user]));

  const std::lock_guard lock(mutex_);
  check_cuda(cudaSetDevice(device_), "cudaSetDevice");  // of this thread
  if (n > block_.most) {
    block_ = Block(n, columns);
    for (const Table& table : weights_.tables) block_.tables.emplace_back(n * table.cols);
  }
  block_.user.upload(user_rows, stream_);
  block_.item.upload(items, stream_);
  LeafInput input{.rows = n, .dense = weights_.dense};
  for (size_t t = 0; t < weights_.tables.size(); ++t) {
    const Table& table = weights_.tables[t];
    float* rows = block_.tables[t].data();
    for_each(
        n * table.cols, stream_,
        kernel::GatherRows{table.rows, table.of_users ? block_.user.data() : block_.item.data(),
                           table.rows_begin, table.cols, rows});
    input.tables.emplace_back(rows, static_cast<size_t>(n * table.cols));
  }
  for_each(
      n * columns, stream_,
      kernel::GatherRows{weights_.columns, block_.item.data(), 0, columns, block_.columns.data()});
  input.columns = {block_.columns.data(), static_cast<size_t>(n * columns)};
  engine_.predict(input, {block_.score.data(), static_cast<size_t>(n)}, stream_.handle());
  block_.score.download(out, stream_);
  // Not by the communicator, which is for one thread: a device that hangs is the watchdog's, as any work is.
  check_cuda(cudaStreamSynchronize(stream_), "prediction");
}

}  // namespace kt
