#include "trainer/devices/item_requests.h"

#include <algorithm>
#include <numeric>

#include "launch/base/errors.h"
#include "trainer/devices/kernels.h"

namespace kt {
namespace {

int64_t sum(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

std::vector<int64_t> times(std::span<const int64_t> counts, int64_t factor) {
  std::vector<int64_t> result(counts.begin(), counts.end());
  for (int64_t& count : result) count *= factor;
  return result;
}

}  // namespace

ItemRequests::ItemRequests(const Parameters& parameters, const Schedule& schedule,
                           std::span<const ShardSamples> samples, uint64_t seed,
                           Communicator& devices, Communicator& control, DeviceStream& stream)
    : schedule_(schedule),
      seed_(seed),
      shards_(parameters.shards()),
      comm_(devices),
      control_(control),
      stream_(stream) {
  for (const ShardSamples& shard : samples) samples_.push_back(&shard.train);
  const std::vector<int64_t>& begin = parameters.item_begin();
  const World world = comm_.world();
  for (int rank = 0; rank < world.size; ++rank) {
    const Range blocks = shards_of_rank(parameters.shard_count(), {rank, world.size});
    owner_.resize(static_cast<size_t>(begin[blocks.end]), rank);
    item_rows_.push_back(begin[blocks.end] - begin[blocks.begin]);
  }
}

DeviceArray<float> ItemRequests::gather(const float* own, int64_t cols) {
  const std::vector<int64_t> counts = times(item_rows_, cols);
  DeviceArray<float> all(sum(counts));
  comm_.all_gather(own, all.data(), counts, DataType::kFloat32, stream_.handle());
  comm_.synchronize(stream_.handle());
  return all;
}

void ItemRequests::begin_epoch(int64_t epoch, int64_t cols) {
  const int64_t size = comm_.world().size, steps = schedule_.steps();
  std::vector<int64_t> by_rank(static_cast<size_t>(size * steps), 0), asked(by_rank.size());
  std::vector<int64_t> own(static_cast<size_t>(steps), 0);
  for (int64_t j = shards_.begin; j < shards_.end; ++j) {
    const Samples& train = *samples_[j - shards_.begin];
    const EpochOrder order = epoch_order(std::ssize(train), seed_, epoch, j);
    for (int64_t t = 0; t < steps; ++t) {
      const Range positions = schedule_.positions(j, t);
      own[t] += positions.size();
      for (int64_t p = positions.begin; p < positions.end; ++p)
        ++by_rank[owner_[train[order(p)].item] * steps + t];
    }
  }
  const std::vector<int64_t> counts(size, steps);
  control_.all_to_all<int64_t>(by_rank, counts, asked, counts);
  asking_.resize(by_rank.size());
  asked_.resize(by_rank.size());
  int64_t most = 0;
  for (int64_t t = 0; t < steps; ++t) {
    int64_t total = 0;
    for (int64_t rank = 0; rank < size; ++rank) {
      asking_[t * size + rank] = by_rank[rank * steps + t];
      total += asked_[t * size + rank] = asked[rank * steps + t];
    }
    most = std::max(most, total);
  }
  KT_CHECK(most <= INT32_MAX, "{} rows asked of one rank in one step", most);
  if (most > asked_items_.size()) {
    asked_items_ = DeviceArray<int32_t>(most);
    asked_numbers_ = DeviceArray<int32_t>(most);
    for_each(most, stream_, kernel::Count{asked_numbers_.data()});
    by_asked_ = PairSort(most, std::ssize(owner_));
  }
  const int64_t room = std::max(most, std::ranges::max(own)) * cols;
  if (room > outgoing_.size()) {
    outgoing_ = DeviceArray<float>(room);
    incoming_ = DeviceArray<float>(room);
  }
}

void ItemRequests::route(int64_t step, const int32_t* items) {
  step_ = step;
  asked_total_ = sum(counts_of(asked_));
  comm_.all_to_all(items, counts_of(asking_), asked_items_.data(), counts_of(asked_),
                   DataType::kInt32, stream_.handle());
  by_asked_.sort(asked_items_.data(), asked_numbers_.data(), asked_total_, stream_);
}

const float* ItemRequests::fetch(const float* from, int64_t first_item, int64_t cols) {
  for_each(asked_total_ * cols, stream_,
           kernel::GatherRows{from, asked_items_.data(), first_item, cols, outgoing_.data()});
  comm_.all_to_all(outgoing_.data(), times(counts_of(asked_), cols), incoming_.data(),
                   times(counts_of(asking_), cols), DataType::kFloat32, stream_.handle());
  return incoming_.data();
}

const float* ItemRequests::give_back(int64_t cols) {
  comm_.all_to_all(outgoing_.data(), times(counts_of(asking_), cols), incoming_.data(),
                   times(counts_of(asked_), cols), DataType::kFloat32, stream_.handle());
  return incoming_.data();
}

}  // namespace kt
