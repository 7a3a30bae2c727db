#include <utility>

#include "launch/base/errors.h"
#include "trainer/devices/device_samples.h"
#include "trainer/devices/kernels.h"

namespace kt {
namespace {

/// Room of the device that resident samples may take. What is left is for what comes later: the activations of
/// libtorch, and what steps have of their rows.
constexpr double kShareOfFree = .5;

int64_t free_bytes() {
  size_t free = 0, all = 0;
  check_cuda(cudaMemGetInfo(&free, &all), "cudaMemGetInfo");
  return static_cast<int64_t>(free);
}

}  // namespace

DeviceSamples::DeviceSamples(Source source, int64_t steps_at_once, Communicator& comm,
                             DeviceStream& stream)
    : from_(std::move(source)), comm_(comm), stream_(stream) {
  int64_t samples = 0, users = 0;
  for (int64_t j = from_.shards.begin; j < from_.shards.end; ++j) {
    const ShardSamples& shard = from_.samples[j - from_.shards.begin];
    KT_CHECK(std::ssize(shard.train) == from_.schedule.samples(j));
    first_user_.push_back(static_cast<int32_t>(users));
    users += std::ssize(shard.users);
    samples += std::ssize(shard.train);
  }
  const int64_t most = from_.rows.most_of(steps_at_once), columns = from_.column_count;
  const int64_t bytes = (2 * static_cast<int64_t>(sizeof(int32_t) + sizeof(float)) +
                         columns * static_cast<int64_t>(sizeof(float))) *
                        (samples + most);
  if (!from_.negatives &&
      static_cast<double>(bytes) <= kShareOfFree * static_cast<double>(free_bytes())) {
    resident_.emplace(samples, columns);
    gathered_.emplace(most, columns);
    upload_samples();
  } else {
    for (std::optional<Buffer>& buffer : buffers_) buffer.emplace(most, columns);
  }
}

void DeviceSamples::upload_samples() {
  std::vector<int64_t> counts, phases, first;
  int64_t begin = 0;
  for (int64_t j = from_.shards.begin; j < from_.shards.end; ++j) {
    const int64_t own = j - from_.shards.begin;
    const Samples& train = from_.samples[own].train;
    first.push_back(begin);
    counts.push_back(std::ssize(train));
    phases.push_back(from_.schedule.phase(j));
    std::vector<int32_t> user, item;
    std::vector<float> target;
    std::vector<uint32_t> row;
    for (const Sample& sample : train) {
      user.push_back(first_user_[own] + sample.user);
      item.push_back(sample.item);
      target.push_back(from_.objective.target_of(sample.label));
      row.push_back(sample.row);
    }
    resident_->user.upload(user, stream_, begin);
    resident_->item.upload(item, stream_, begin);
    resident_->target.upload(target, stream_, begin);
    resident_->dropout_key.upload(row, stream_, begin);
    if (from_.column_count > 0)
      resident_->columns.upload(
          {from_.columns[own], train.size() * static_cast<size_t>(from_.column_count)}, stream_,
          begin * from_.column_count);
    begin += std::ssize(train);
    comm_.synchronize(stream_.handle());
  }
  begin_ = {from_.rows.begin(), stream_};
  shard_samples_ = {counts, stream_};
  phase_ = {phases, stream_};
  first_row_ = {first, stream_};
  device_order_ = DeviceArray<EpochOrder>(from_.shards.size());
  comm_.synchronize(stream_.handle());
}

void DeviceSamples::begin_epoch(int64_t epoch) {
  epoch_ = epoch;
  order_.clear();
  for (int64_t j = from_.shards.begin; j < from_.shards.end; ++j)
    order_.push_back(epoch_order(from_.schedule.samples(j), from_.seed, epoch, j));
  if (resident()) {
    device_order_.upload(order_, stream_);
    comm_.synchronize(stream_.handle());
  } else {
    for (std::optional<Buffer>& buffer : buffers_) buffer->steps = {0, 0};
  }
}

DeviceSamples::Rows DeviceSamples::take(Range steps) {
  if (!resident()) {
    Buffer& buffer = *buffers_[turn_];
    if (buffer.steps.begin != steps.begin || buffer.steps.end != steps.end) fill(buffer, steps);
    stream_.wait_for(buffer.copies);
    return view(buffer.device);
  }
  for_each(from_.rows.of(steps).size(), stream_,
           kernel::GatherSamples{.begin = begin_.data(),
                                 .step = steps.begin,
                                 .taken = steps.size(),
                                 .units = from_.shards.size(),
                                 .samples = shard_samples_.data(),
                                 .phase = phase_.data(),
                                 .steps = from_.schedule.steps(),
                                 .first_row = first_row_.data(),
                                 .order = device_order_.data(),
                                 .seed = from_.seed,
                                 .epoch = epoch_,
                                 .column_count = from_.column_count,
                                 .user_from = resident_->user.data(),
                                 .item_from = resident_->item.data(),
                                 .target_from = resident_->target.data(),
                                 .row_from = resident_->dropout_key.data(),
                                 .columns_from = resident_->columns.data(),
                                 .user = gathered_->user.data(),
                                 .item = gathered_->item.data(),
                                 .target = gathered_->target.data(),
                                 .dropout_key = gathered_->dropout_key.data(),
                                 .columns = gathered_->columns.data()});
  return view(*gathered_);
}

void DeviceSamples::fetch_ahead(Range steps) {
  if (resident()) return;
  // The copy into this buffer two calls on comes after all that reads it now.
  buffers_[turn_]->copies.wait_for(stream_);
  turn_ = 1 - turn_;
  if (steps.size() > 0) fill(*buffers_[turn_], steps);
}

// Gathers while the device is at the steps before. The wait is for the last copy out of the pinned memory, and so
// for the steps before those: the host is never further ahead.
void DeviceSamples::fill(Buffer& buffer, Range steps) {
  comm_.synchronize(buffer.copies.handle());
  int64_t n = 0;
  for (int64_t t = steps.begin; t < steps.end; ++t)
    for (int64_t own = 0; own < from_.shards.size(); ++own) n = fill_shard(buffer.host, n, own, t);
  buffer.device.user.upload(buffer.host.user.first(n), buffer.copies);
  buffer.device.item.upload(buffer.host.item.first(n), buffer.copies);
  buffer.device.target.upload(buffer.host.target.first(n), buffer.copies);
  buffer.device.dropout_key.upload(buffer.host.dropout_key.first(n), buffer.copies);
  buffer.device.columns.upload(buffer.host.columns.first(n * from_.column_count), buffer.copies);
  buffer.steps = steps;
}

/// The rows of a shard in a step, from place n on. Returns: the end.
int64_t DeviceSamples::fill_shard(Columns<PinnedArray>& to, int64_t n, int64_t own,
                                  int64_t step) const {
  const Samples& train = from_.samples[own].train;
  const Range positions = from_.schedule.positions(from_.shards.begin + own, step);
  const int64_t group = from_.negatives ? from_.negatives->group() : 1;
  for (int64_t p = positions.begin; p < positions.end; ++p) {
    const int64_t place = order_[own](p);
    const Sample& sample = train[place];
    if (from_.negatives) {
      from_.negatives->draw(own, sample, epoch_, to.item.data() + n, to.target.data() + n);
    } else {
      to.item.data()[n] = sample.item;
      to.target.data()[n] = from_.objective.target_of(sample.label);
    }
    for (int64_t k = 0; k < group; ++k, ++n) {
      to.user.data()[n] = first_user_[own] + sample.user;
      to.dropout_key.data()[n] =
          from_.negatives
              ? dropout_key_of_group(from_.seed, static_cast<uint64_t>(epoch_), sample.row, k)
              : dropout_key(from_.seed, static_cast<uint64_t>(epoch_), sample.row);
      for (int64_t c = 0; c < from_.column_count; ++c)
        to.columns.data()[n * from_.column_count + c] =
            from_.columns[own][place * from_.column_count + c];
    }
  }
  return n;
}

}  // namespace kt
