#include <algorithm>
#include <numeric>

#include "launch/base/errors.h"
#include "trainer/devices/item_requests.h"

namespace kt {
namespace {

template <class T>
void grow(DeviceArray<T>& array, int64_t size) {
  if (array.size() < size) array = DeviceArray<T>(size);
}

}  // namespace

ItemRequests::ItemRequests(const Parameters& parameters, Communicator& devices,
                           Communicator& control, DeviceStream& stream)
    : comm_(devices),
      control_(control),
      stream_(stream),
      first_item_(parameters.held_items().begin),
      items_(parameters.item_begin().back()) {
  const World world = comm_.world();
  std::vector<int64_t> first;
  for (int rank = 0; rank < world.size; ++rank) {
    const Range blocks = shards_of_rank(parameters.shard_count(), {rank, world.size});
    first.push_back(parameters.item_begin()[blocks.begin]);
    item_rows_.push_back(parameters.item_begin()[blocks.end] - first.back());
  }
  first.push_back(items_);
  rank_items_ = {first, stream_};
  comm_.synchronize(stream_.handle());
}

DeviceArray<float> ItemRequests::gather(const float* own, int64_t cols) {
  std::vector<int64_t> counts = item_rows_;
  for (int64_t& count : counts) count *= cols;
  DeviceArray<float> all(items_ * cols);
  comm_.all_gather(own, all.data(), counts, DataType::kFloat32, stream_.handle());
  comm_.synchronize(stream_.handle());
  return all;
}

void ItemRequests::prepare(int64_t steps, const int64_t* keys, int64_t n, int64_t cols) {
  const int64_t ranks = comm_.world().size;
  steps_ = steps;
  grow(begin_, steps * ranks + 1);
  for_each(steps * ranks + 1, stream_,
           kernel::FindRequests{keys, n, items_, ranks, steps, rank_items_.data(), begin_.data()});
  std::vector<int64_t> begin(static_cast<size_t>(steps * ranks + 1));
  begin_.download(begin, stream_);
  comm_.synchronize(stream_.handle());
  int64_t most = 0;
  for (size_t k = 1; k < begin.size(); ++k) most = std::max(most, begin[k] - begin[k - 1]);
  control_.all_reduce(std::span(&most, 1), Reduction::kMax);
  capacity_ = std::max(capacity_, most);
  KT_CHECK(rows() <= INT32_MAX, "{} rows asked of one rank in one step", rows());

  const int64_t slots = ranks * steps * capacity_;
  grow(asking_, slots);
  grow(asked_, slots);
  grow(outgoing_, rows() * cols);
  grow(incoming_, rows() * cols);
  for_each(slots, stream_,
           kernel::Ask{keys, begin_.data(), items_, ranks, steps, capacity_, asking_.data()});
  const std::vector<int64_t> counts(static_cast<size_t>(ranks), steps * capacity_);
  comm_.all_to_all(asking_.data(), counts, asked_.data(), counts, DataType::kInt32,
                   stream_.handle());
}

kernel::RequestPlaces ItemRequests::places(const int32_t* row, int32_t* to) const {
  return {begin_.data(), comm_.world().size, steps_, capacity_, row, to};
}

void ItemRequests::fetch(const kernel::StepNow* now, const float* from, int64_t cols) {
  for_each(rows() * cols, stream_,
           kernel::Answer{now, asked_.data(), steps_, capacity_, from, first_item_, cols,
                          outgoing_.data()});
  exchange(cols);
}

const float* ItemRequests::give_back(int64_t cols) {
  exchange(cols);
  return incoming_.data();
}

void ItemRequests::exchange(int64_t cols) {
  const std::vector<int64_t> counts(static_cast<size_t>(comm_.world().size), capacity_ * cols);
  comm_.all_to_all(outgoing_.data(), counts, incoming_.data(), counts, DataType::kFloat32,
                   stream_.handle());
}

}  // namespace kt
