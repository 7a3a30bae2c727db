#include "trainer/evaluation/held_out_rows.h"

#include <algorithm>
#include <numeric>

namespace kt {
namespace {

/// Rows of a block of validation rows; part of a run's bits.
constexpr int64_t kValidationBlock = 4096;

/// The rows of a shard in blocks; `first_user` is its first among this rank's. Shapes: counts [users of the shard], items
/// [rows], user by user.
void add_rows(int64_t first_user, std::span<const int64_t> counts, std::span<const int32_t> items,
              Pairs& pairs) {
  int64_t at = 0;
  for (size_t user = 0; user < counts.size(); ++user) {
    const int64_t end = at + counts[user];
    while (at < end) {
      const int64_t block_end = (at / kValidationBlock + 1) * kValidationBlock;
      const int64_t to = std::min(end, block_end);
      pairs.add_list(first_user + static_cast<int64_t>(user), items.subspan(at, to - at));
      if (to == block_end || to == std::ssize(items)) pairs.end_block();
      at = to;
    }
  }
}

}  // namespace

HeldOutRows held_out_rows(std::span<const ShardSamples> samples) {
  HeldOutRows held_out;
  int64_t first_user = 0;
  for (const ShardSamples& shard : samples) {
    const Samples& rows = shard.validation;
    std::vector<int64_t>& counts = held_out.user_rows.emplace_back(shard.users.size(), 0);
    for (const Sample& sample : rows) ++counts[sample.user];
    std::vector<int64_t> next(counts.size());
    std::exclusive_scan(counts.begin(), counts.end(), next.begin(), int64_t{0});
    std::vector<int32_t> items(rows.size());
    const auto base = std::ssize(held_out.label);
    held_out.label.resize(base + rows.size());
    for (const Sample& sample : rows) {
      const int64_t at = next[sample.user]++;
      items[at] = sample.item;
      held_out.label[base + at] = sample.label;
    }
    add_rows(first_user, counts, items, held_out.pairs);
    first_user += std::ssize(counts);
  }
  return held_out;
}

}  // namespace kt
