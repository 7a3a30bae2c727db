#include "trainer/steps/encoder_batches.h"

#include <algorithm>

#include "launch/base/random.h"
#include "sharding/gather_shards.h"
#include "sharding/rows_of_blocks.h"
#include "trainer/run/history.h"

namespace kt {

EncoderBatches::EncoderBatches(const Problem& problem, const Parameters& parameters,
                               const Schedule& schedule, std::span<const ShardSamples> samples,
                               Communicator& comm)
    : problem_(problem),
      schedule_(schedule),
      seed_(static_cast<uint64_t>(problem.config.train.seed)),
      outputs_of_all_(std::ssize(problem.history_items)) {
  const SparseRows own = encoder_targets(problem, parameters, comm);
  std::vector<int64_t> lengths;
  for (int64_t user = 0; user < own.rows(); ++user)
    lengths.push_back(std::ssize(own.items_of(user)));
  lengths_ = gather_to_all<int64_t>(lengths, comm);
  cells_ = exchange_rows(own, parameters.item_begin(), comm);

  std::vector<int32_t> ids;
  for (const ShardSamples& shard : samples)
    ids.insert(ids.end(), shard.users.begin(), shard.users.end());
  ids_ = gather_to_all<int32_t>(ids, comm);
  std::vector<int32_t> rows;  // of each user
  for (const ShardSamples& shard : samples) {
    std::vector<int32_t> of_shard(shard.users.size(), 0);
    for (const Sample& sample : shard.train) ++of_shard[sample.user];
    rows.insert(rows.end(), of_shard.begin(), of_shard.end());
  }
  rows = gather_to_all<int32_t>(rows, comm);
  int32_t user = 0;
  for (const int64_t users : problem.users_per_shard) {
    std::vector<int32_t>& takers = takers_.emplace_back();
    for (const int64_t end = user + users; user < end; ++user)
      if (rows[user] > 0) takers.push_back(user);
  }
}

EncoderBatches::Batch EncoderBatches::take(int64_t epoch, int64_t step) const {
  Batch batch;
  for (int64_t shard = 0; shard < std::ssize(takers_); ++shard) {
    const EpochOrder order = epoch_order(std::ssize(takers_[shard]), seed_, epoch, shard);
    const Range positions = schedule_.positions(shard, step);
    for (int64_t position = positions.begin; position < positions.end; ++position) {
      const int32_t user = takers_[shard][order(position)];
      batch.users.push_back(user);
      batch.keys.push_back(
          dropout_key(seed_, static_cast<uint64_t>(epoch), static_cast<uint32_t>(ids_[user])));
      batch.outputs += problem_.system.encoder->shown_alone ? lengths_[user] : outputs_of_all_;
    }
  }
  return batch;
}

int64_t EncoderBatches::users() const {
  int64_t users = 0;
  for (const std::vector<int32_t>& takers : takers_) users += std::ssize(takers);
  return users;
}

std::vector<std::vector<int32_t>> encoder_outputs(const Problem& problem,
                                                  const Parameters& parameters) {
  const std::vector<int64_t>& begin = parameters.item_begin();
  const int64_t first = parameters.held_items().begin;
  std::vector<std::vector<int32_t>> outputs;
  auto next = std::ranges::lower_bound(problem.history_items, first);
  for (int64_t block = parameters.shards().begin; block < parameters.shards().end; ++block) {
    std::vector<int32_t>& rows = outputs.emplace_back();
    for (; next != problem.history_items.end() && *next < begin[block + 1]; ++next)
      rows.push_back(static_cast<int32_t>(*next - first));
  }
  return outputs;
}

}  // namespace kt
