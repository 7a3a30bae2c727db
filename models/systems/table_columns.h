#pragma once

#include <array>
#include <string>
#include <vector>

#include "models/features/columns.h"

/// Columns of KuaiRec's side tables that several systems read.
namespace kt {

/// A column of the user table, as a number.
Column user_column(const std::string& name);
Column daily_column(const std::string& name, DailyReduction reduction);
/// The length of a video, as one of 50 ranges to be embedded.
Column duration_ranges();

/// Every category of the user table, to be embedded.
void add_user_codes(std::vector<Column>& to);
/// What the daily table says of a video that names few kinds, to be embedded: of its first row.
void add_kind_codes(std::vector<Column>& to);
/// Likewise where it comes from, columns of thousands of codes.
inline constexpr std::array kOrigins{"author_id", "music_id", "video_tag_id"};
void add_origin_codes(std::vector<Column>& to);
/// The three category levels of videos, to be embedded.
void add_category_codes(std::vector<Column>& to);
/// Means of what the daily table counts and measures.
void add_daily_means(std::vector<Column>& to);

}  // namespace kt
