#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"
#include "sharding/plan.h"

namespace kt {

/// A training row as its item sees it.
struct ItemRow {
  int32_t user = 0;  ///< whatever number the caller gives users
  float value = 0;
  float weight = 1;
};

/// The rows of the items that this rank owns the blocks of: what sums over an item's rows are taken from.
struct ItemRows {
  Range items;                 ///< of the own blocks
  std::vector<int64_t> begin;  ///< [items + 1] into `rows`
  std::vector<ItemRow>
      rows;  ///< item by item, those of an item in (shard, position) order: the same on any ranks

  std::span<const ItemRow> of(int64_t item) const {
    const int64_t k = item - items.begin;
    return std::span(rows).subspan(begin[k], begin[k + 1] - begin[k]);
  }
};

/// Brings every row to the owner of its item. Shapes: item, rows [own rows], in (shard, position) order; item_begin
/// [V + 1] where the blocks of items begin. Collective: all ranks.
ItemRows exchange_item_rows(std::span<const int32_t> item, std::span<const ItemRow> rows,
                            std::span<const int64_t> item_begin, Communicator& comm);

}  // namespace kt
