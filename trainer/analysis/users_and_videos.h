#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "io/dataset/dataset.h"
#include "trainer/analysis/row_numbers.h"

namespace kt {

/// Rows and mean label a user, of those with rows; the ten whose labels vary most.
nlohmann::json users_of(const RowNumbers& rows, const std::vector<std::string>& user_ids);

/// Rows and mean label a video, of those with rows; the ten most viewed, the ten best and the ten worst by mean label of
/// those with more than ten rows; how rows gather on few videos.
nlohmann::json videos_of(const RowNumbers& rows, const std::vector<std::string>& item_ids,
                         const ItemTexts& texts);

}  // namespace kt
