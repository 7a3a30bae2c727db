#include <gmock/gmock.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "launch/base/random.h"
#include "sharding/item_rows.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

constexpr int64_t kShards = 8, kItems = 13;

struct Row {
  int32_t item;
  ItemRow row;
};

/// The rows of a shard, in order; some shards have none.
std::vector<Row> rows_of_shard(int64_t shard) {
  std::vector<Row> rows;
  const auto draw = [&](uint64_t k) {
    return random_bits(7, Purpose::kSynthetic, static_cast<uint64_t>(shard), k);
  };
  for (uint64_t k = 0; k < (shard % 3 == 1 ? 0 : draw(0) % 40); ++k)
    rows.push_back({static_cast<int32_t>(draw(3 * k + 1) % kItems),
                    {static_cast<int32_t>(shard * 100 + static_cast<int64_t>(k)),
                     static_cast<float>(draw(3 * k + 2) % 1000), static_cast<float>(k)}});
  return rows;
}

class ItemRowsOfRanks : public MpiTest {};

TEST_F(ItemRowsOfRanks, AreWithTheirOwnersInTheOrderOfShards) {
  const std::vector<int64_t> begin = even_blocks(kItems, kShards);
  const Range own = shards_of_rank(kShards, world);
  std::vector<int32_t> item;
  std::vector<ItemRow> rows;
  std::vector<Row> all;
  for (int64_t shard = 0; shard < kShards; ++shard)
    for (const Row& row : rows_of_shard(shard)) {
      all.push_back(row);
      if (shard < own.begin || shard >= own.end) continue;
      item.push_back(row.item);
      rows.push_back(row.row);
    }
  const ItemRows got = exchange_item_rows(item, rows, begin, comm);
  EXPECT_EQ(got.items, (Range{begin[own.begin], begin[own.end]}));
  for (int64_t k = got.items.begin; k < got.items.end; ++k) {
    std::vector<std::tuple<int32_t, float, float>> want, found;
    for (const Row& row : all)
      if (row.item == k) want.emplace_back(row.row.user, row.row.value, row.row.weight);
    for (const ItemRow& row : got.of(k)) found.emplace_back(row.user, row.value, row.weight);
    EXPECT_EQ(found, want) << "item " << k;
  }
}

}  // namespace
}  // namespace kt
