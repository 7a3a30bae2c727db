#pragma once

#include <nlohmann/json_fwd.hpp>

#include "io/dataset/dataset.h"
#include "launch/base/parallel_for.h"

namespace kt {

/// What a data set looks like, in numbers; trainer/reports/data_page.h shows them. Two passes over the rows, a shard a
/// thread at a time: memory is that of the shards at hand and of sums a user and a video. The same bits on any number of
/// threads. What the data set lacks is {absent: why}, what is undefined null.
/// Throws: UserError for a file that is missing or damaged.
nlohmann::json analyze(const Dataset& dataset, ThreadPool& pool);

}  // namespace kt
