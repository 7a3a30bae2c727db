#include <algorithm>
#include <bit>

#include "launch/base/errors.h"
#include "trainer/devices/device_norms.h"

namespace kt {

DeviceNorms::DeviceNorms(const FusedModel& model, const Engine& engine,
                         const Parameters& parameters, DeviceWeights& weights, Communicator& comm,
                         DeviceStream& stream)
    : weights_(weights),
      comm_(comm),
      stream_(stream),
      units_(parameters.shards().size()),
      leaves_(parameters.shard_count()),
      batch_(model.compiled().norms_size()) {
  const auto part_of = [&](size_t array) {
    return static_cast<size_t>(
        std::ranges::find(weights.parts(), array, &DeviceWeights::Part::array) -
        weights.parts().begin());
  };
  int64_t widest = 0;
  for (size_t k = 0; k < model.norms().size(); ++k) {
    const BatchNorm& of = engine.batch_norms()[k];
    const auto columns_of = [&](size_t array) {
      const DeviceWeights::Part& part = weights.parts()[part_of(array)];
      const int64_t begin = part.rows_begin * part.cols;
      return Range{begin, begin + part.size};
    };
    norms_.push_back({.place = model.norms()[k],
                      .momentum = of.momentum,
                      .mean = part_of(of.mean),
                      .variance = part_of(of.variance),
                      .mean_columns = columns_of(of.mean),
                      .variance_columns = columns_of(of.variance)});
    moments_.emplace_back(1 + 2 * of.width);
    widest = std::max(widest, of.width);
  }
  if (norms_.empty()) return;
  batch_.zero(stream_);
  statistics_ = DeviceArray<double>(units_ * (1 + 2 * widest));
  all_statistics_ = DeviceArray<double>(leaves_ * (1 + 2 * widest));
  for (int rank = 0; rank < comm_.world().size; ++rank)
    units_of_rank_.push_back(shards_of_rank(leaves_, {rank, comm_.world().size}).size());
}

void DeviceNorms::share_statistics(int64_t pass, const int64_t* unit_begin,
                                   const kernel::Blocks& blocks, float* leaves) {
  const auto norms = static_cast<int64_t>(norms_.size());
  const bool forward = pass < norms;
  const int64_t k = forward ? pass : 2 * norms - 1 - pass;
  const kernel::NormPlace& place = norms_[k].place;
  for_teams(units_, kTeamThreads, 0, stream_,
            kernel::LeafStatistics{.now = weights_.now(),
                                   .unit_begin = unit_begin,
                                   .units = units_,
                                   .blocks = blocks,
                                   .norm = place,
                                   .forward = forward,
                                   .numbers = batch_.data(),
                                   .leaves = leaves,
                                   .dense_size = weights_.dense_size(),
                                   .to = statistics_.data()});
  const double* all = statistics_.data();
  if (comm_.world().size > 1) {
    std::vector<int64_t> counts = units_of_rank_;
    for (int64_t& count : counts) count *= 1 + 2 * place.width;
    comm_.all_gather(statistics_.data(), all_statistics_.data(), counts, DataType::kFloat64,
                     stream_.handle());
    all = all_statistics_.data();
  }
  for_each(place.width, stream_,
           kernel::SetStatistics{.leaves = all,
                                 .level = std::countr_zero(static_cast<uint64_t>(leaves_)),
                                 .norm = place,
                                 .forward = forward,
                                 .dense = weights_.dense(),
                                 .numbers = batch_.data(),
                                 .moments = moments_[k].data()});
}

void DeviceNorms::update_running() {
  for (size_t k = 0; k < norms_.size(); ++k) {
    const Norm& norm = norms_[k];
    for_each(norm.mean_columns.size() + norm.variance_columns.size(), stream_,
             kernel::UpdateRunning{.bad = weights_.bad(),
                                   .moments = moments_[k].data(),
                                   .width = norm.place.width,
                                   .momentum = norm.momentum,
                                   .means = norm.mean_columns.size(),
                                   .first_mean = norm.mean_columns.begin,
                                   .first_variance = norm.variance_columns.begin,
                                   .mean = weights_.values(weights_.parts()[norm.mean]),
                                   .variance = weights_.values(weights_.parts()[norm.variance])});
  }
}

}  // namespace kt
