#pragma once

#include <nlohmann/json_fwd.hpp>

#include "io/dataset/dataset.h"
#include "launch/base/parallel_for.h"
#include "trainer/analysis/row_numbers.h"

namespace kt {

/// The daily features of videos (models/features/content_features.h, unscaled): described, correlated with one another
/// and with the mean label of a video's training rows; the two principal components of five of them. A data set without
/// the daily table: {absent}.
nlohmann::json engagement_of(const Dataset& dataset, const RowNumbers& training, ThreadPool& pool);

}  // namespace kt
