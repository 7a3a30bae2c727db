#pragma once

#include <nlohmann/json_fwd.hpp>

#include "io/dataset/dataset.h"
#include "trainer/analysis/row_numbers.h"

/// Training rows by what side tables say of their videos and users. A table that the source lacked: {absent}.
namespace kt {

/// A tag of item_categories.csv each: its videos, their rows and mean label; most videos first.
nlohmann::json tags_of(const Dataset& dataset, const RowNumbers& training);
/// The same of the first level of kuairec_caption_category.csv.
nlohmann::json categories_of(const Dataset& dataset, const RowNumbers& training);
/// Columns of user_features.csv with few values, each value: its users, their rows and mean label; most
/// users first.
nlohmann::json user_columns_of(const Dataset& dataset, const RowNumbers& training);
/// Friends a user, and how many of the friendships are returned (social_network.csv).
nlohmann::json friends_of(const Dataset& dataset);

}  // namespace kt
