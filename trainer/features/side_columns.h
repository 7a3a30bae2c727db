#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/dataset/dataset.h"
#include "models/features/columns.h"
#include "trainer/run/samples.h"

/// Columns of users and items from side tables.
namespace kt {

/// Columns as the tables have them, missing values NaN. Shapes: user [user columns][users], item [item columns][items].
struct SideColumns {
  std::vector<std::vector<double>> user, item;
};

/// Throws: UserError, naming the column, for a side table that the data set lacks.
void expect_tables(std::span<const Column> columns, const Dataset& dataset);

/// `until`: daily rows up to that date alone; 0: all. Durations that no daily table tells are left missing.
/// Throws: UserError for a column that its table lacks, and for a code beyond a bag.
SideColumns read_side_columns(std::span<const Column> columns, const Dataset& dataset,
                              int32_t until);

/// The numbers of one side as a system reads them, missing values filled, scaled. `counts` says how many training rows
/// each user or item has. Shapes: raw [width][n], counts [n], result [n, width].
std::vector<float> finish_columns(std::span<const Column> columns, Side side,
                                  std::vector<std::vector<double>> raw,
                                  std::span<const int64_t> counts);

/// How many codes each embedded column of a side has, 0 among them. Throws: UserError as `read_side_columns` does.
std::vector<int64_t> code_counts(std::span<const Column> columns, Side side,
                                 const Dataset& dataset);

/// For each item, the source row of the first training row of these shards and its video_duration, as row * 2^32 +
/// milliseconds: the least of several is the first of all. 2^64 - 1 for none. Reads the shards. Shapes: [items].
/// Throws: UserError where the data set has no durations.
std::vector<uint64_t> first_durations(const Dataset& dataset, std::span<const ShardSamples> samples,
                                      int64_t first_shard);
constexpr uint64_t kNoDuration = ~uint64_t{0};

}  // namespace kt
