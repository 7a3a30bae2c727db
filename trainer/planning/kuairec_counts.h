#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/features/columns.h"

namespace kt {

/// KuaiRec 2.0 after the import, for a plan without a data set: 7,176 users, 10,728 videos, 11,562,802 training
/// rows, 4,676,570 test pairs. Source: kuairec.com and the import's own count of duplicates.
struct KuaiRecCounts {
  static constexpr int64_t users = 7'176;
  static constexpr int64_t items = 10'728;
  static constexpr int64_t rows = 11'562'802;
  static constexpr int64_t test_pairs = 4'676'570;
  static constexpr int64_t shards = 64;
};

/// How many codes each embedded column of a side has there, 0 among them. Source: counted in user_features.csv and
/// kuairec_caption_category.csv.
std::vector<int64_t> kuairec_codes(std::span<const Column> columns, Side side);

}  // namespace kt
