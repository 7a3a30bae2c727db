#include <numeric>

#include "launch/base/errors.h"
#include "trainer/devices/device_samples.h"
#include "trainer/devices/kernels.h"

namespace kt {
namespace {

/// Room of the device that resident samples may take. What is left is for what comes later: the activations of
/// libtorch, and the buffers of an epoch's requests.
constexpr double kShareOfFree = .5;

int64_t free_bytes() {
  size_t free = 0, all = 0;
  check_cuda(cudaMemGetInfo(&free, &all), "cudaMemGetInfo");
  return static_cast<int64_t>(free);
}

}  // namespace

DeviceSamples::DeviceSamples(const Schedule& schedule, Range shards,
                             std::span<const ShardSamples> samples, const Objective& objective,
                             int64_t most, uint64_t seed, Communicator& comm, DeviceStream& stream)
    : schedule_(schedule),
      shards_(shards),
      samples_(samples),
      objective_(objective),
      seed_(seed),
      comm_(comm),
      stream_(stream) {
  int64_t rows = 0, users = 0;
  for (int64_t j = shards.begin; j < shards.end; ++j) {
    const ShardSamples& shard = samples[j - shards.begin];
    KT_CHECK(std::ssize(shard.train) == schedule.samples(j));
    first_user_.push_back(static_cast<int32_t>(users));
    users += std::ssize(shard.users);
    rows += shard.train.size();
  }
  constexpr int64_t kRowBytes = sizeof(int32_t) * 2 + sizeof(float) + sizeof(uint32_t);
  if (static_cast<double>((rows + most) * kRowBytes) <=
      kShareOfFree * static_cast<double>(free_bytes())) {
    columns_.emplace(rows);
    gathered_.emplace(most);
    upload_columns();
  } else {
    for (std::optional<Buffer>& buffer : buffers_) buffer.emplace(most);
  }
}

void DeviceSamples::upload_columns() {
  std::vector<int64_t> counts, phases, first;
  int64_t begin = 0;
  for (int64_t j = shards_.begin; j < shards_.end; ++j) {
    const Samples& train = samples_[j - shards_.begin].train;
    first.push_back(begin);
    counts.push_back(std::ssize(train));
    phases.push_back(schedule_.phase(j));
    std::vector<int32_t> user, item;
    std::vector<float> target;
    std::vector<uint32_t> row;
    for (const Sample& sample : train) {
      user.push_back(first_user_[j - shards_.begin] + sample.user);
      item.push_back(sample.item);
      target.push_back(objective_.target_of(sample.label));
      row.push_back(sample.row);
    }
    columns_->user.upload(user, stream_, begin);
    columns_->item.upload(item, stream_, begin);
    columns_->target.upload(target, stream_, begin);
    columns_->row.upload(row, stream_, begin);
    begin += std::ssize(train);
    comm_.synchronize(stream_.handle());
  }
  shard_samples_ = {counts, stream_};
  phase_ = {phases, stream_};
  first_row_ = {first, stream_};
  device_order_ = DeviceArray<EpochOrder>(shards_.size());
  place_ = DeviceArray<int64_t>(shards_.size() + 1);
  position_ = DeviceArray<int64_t>(shards_.size());
  comm_.synchronize(stream_.handle());
}

void DeviceSamples::begin_epoch(int64_t epoch) {
  order_.clear();
  for (int64_t j = shards_.begin; j < shards_.end; ++j)
    order_.push_back(epoch_order(schedule_.samples(j), seed_, epoch, j));
  if (resident()) {
    device_order_.upload(order_, stream_);
    comm_.synchronize(stream_.handle());
  } else {
    for (std::optional<Buffer>& buffer : buffers_) buffer->step = -1;
  }
}

DeviceSamples::Step DeviceSamples::take(int64_t step) {
  if (!resident()) {
    Buffer& buffer = *buffers_[turn_];
    if (buffer.step != step) fill(buffer, step);
    stream_.wait_for(buffer.copies);
    return view(buffer.device);
  }
  const auto n = [&] {
    int64_t sum = 0;
    for (int64_t j = shards_.begin; j < shards_.end; ++j)
      sum += schedule_.positions(j, step).size();
    return sum;
  }();
  for_each(shards_.size() + 1, stream_,
           kernel::PlaceShards{.samples = shard_samples_.data(),
                               .phase = phase_.data(),
                               .steps = schedule_.steps(),
                               .step = step,
                               .shards = shards_.size(),
                               .unit_begin = place_.data(),
                               .position = position_.data()});
  for_each(n, stream_,
           kernel::GatherSamples{.unit_begin = place_.data(),
                                 .position = position_.data(),
                                 .first_row = first_row_.data(),
                                 .order = device_order_.data(),
                                 .user_from = columns_->user.data(),
                                 .item_from = columns_->item.data(),
                                 .target_from = columns_->target.data(),
                                 .row_from = columns_->row.data(),
                                 .user = gathered_->user.data(),
                                 .item = gathered_->item.data(),
                                 .target = gathered_->target.data(),
                                 .row = gathered_->row.data()});
  return view(*gathered_);
}

void DeviceSamples::fetch_ahead(int64_t step) {
  if (resident()) return;
  // The copy into this buffer two steps on comes after all that reads it now.
  buffers_[turn_]->copies.wait_for(stream_);
  turn_ = 1 - turn_;
  if (step + 1 < schedule_.steps()) fill(*buffers_[turn_], step + 1);
}

// Gathers while the device is at the step before. The wait is for the last copy out of the pinned memory, and so
// for the step before that one: the host is never further ahead.
void DeviceSamples::fill(Buffer& buffer, int64_t step) {
  comm_.synchronize(buffer.copies.handle());
  int64_t n = 0;
  for (int64_t j = shards_.begin; j < shards_.end; ++j) {
    const int64_t own = j - shards_.begin;
    const Samples& train = samples_[own].train;
    const Range positions = schedule_.positions(j, step);
    for (int64_t p = positions.begin; p < positions.end; ++p, ++n) {
      const Sample& sample = train[order_[own](p)];
      buffer.host.user.data()[n] = first_user_[own] + sample.user;
      buffer.host.item.data()[n] = sample.item;
      buffer.host.target.data()[n] = objective_.target_of(sample.label);
      buffer.host.row.data()[n] = sample.row;
    }
  }
  buffer.device.user.upload(buffer.host.user.first(n), buffer.copies);
  buffer.device.item.upload(buffer.host.item.first(n), buffer.copies);
  buffer.device.target.upload(buffer.host.target.first(n), buffer.copies);
  buffer.device.row.upload(buffer.host.row.first(n), buffer.copies);
  buffer.step = step;
}

}  // namespace kt
