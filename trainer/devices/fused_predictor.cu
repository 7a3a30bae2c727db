#include <utility>
#include <vector>

#include "launch/base/errors.h"
#include "trainer/devices/fused_kernels.h"
#include "trainer/devices/fused_predictor.h"

namespace kt {
namespace {

constexpr int64_t kMostTeams = 256;

}  // namespace

FusedPredictor::FusedPredictor(const Problem& problem, FusedModel& model, Weights weights,
                               DeviceStream& stream)
    : problem_(problem), model_(model), weights_(std::move(weights)), stream_(stream) {
  check_cuda(cudaGetDevice(&device_), "cudaGetDevice");
}

void FusedPredictor::predict(std::span<const int32_t> users, std::span<const int32_t> items,
                             std::span<float> out) const {
  const auto n = std::ssize(items);
  KT_CHECK(std::ssize(users) == n && std::ssize(out) == n);
  if (n == 0) return;
  std::vector<int32_t> rows(users.size());
  for (size_t k = 0; k < users.size(); ++k)
    rows[k] = static_cast<int32_t>(problem_.user_row[users[k]] - weights_.first_user);

  const std::lock_guard lock(mutex_);
  check_cuda(cudaSetDevice(device_), "cudaSetDevice");  // of this thread
  if (n > output_.size()) {
    user_ = DeviceArray<int32_t>(n);
    item_ = DeviceArray<int32_t>(n);
    output_ = DeviceArray<float>(n);
  }
  user_.upload(rows, stream_);
  item_.upload(items, stream_);
  const std::vector<float> pair_columns = problem_.columns.of_pairs(rows, items);
  const DeviceArray<float> row_columns(pair_columns, stream_);
  const int64_t teams = std::min((n + fused::kBlockRows - 1) / fused::kBlockRows, kMostTeams);
  for_teams(teams, kTeamThreads, model_.rows().shared_bytes(), stream_,
            kernel::PredictRows{model_.arguments(model_.rows(), teams),
                                {.n = n,
                                 .user_parts = weights_.user_parts.data(),
                                 .item_parts = weights_.item_parts.data(),
                                 .user = user_.data(),
                                 .item = item_.data(),
                                 .item_id = item_.data(),
                                 .columns = {weights_.columns[0], weights_.columns[1], row_columns.data()},
                                 .norms = weights_.norms,
                                 .predictions = output_.data()},
                                teams});
  output_.download(out, stream_);
  // Not by the communicator, which is for one thread: a device that hangs is the watchdog's, as any work is.
  check_cuda(cudaStreamSynchronize(stream_), "prediction");
  problem_.system.objective.make_scores(out);
}

}  // namespace kt
