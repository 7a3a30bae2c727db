#include "models/systems/table_columns.h"

namespace kt {
namespace {

void add_daily_code(const char* name, std::vector<Column>& to) {
  to.push_back(daily_column(name, DailyReduction::kFirst));
  to.back().embedded = true;
}

}  // namespace

Column user_column(const std::string& name) {
  return {.name = name, .source = ColumnSource::kUserTable, .of = name};
}

Column daily_column(const std::string& name, DailyReduction reduction) {
  return {.name = name, .source = ColumnSource::kDailyTable, .of = name, .daily = reduction};
}

Column duration_ranges() {
  return {.name = "video_duration",
          .source = ColumnSource::kVideoDuration,
          .embedded = true,
          .ranges = 50};
}

void add_user_codes(std::vector<Column>& to) {
  std::vector<std::string> names = {"user_active_degree",    "is_lowactive_period",
                                    "is_live_streamer",      "is_video_author",
                                    "follow_user_num_range", "fans_user_num_range",
                                    "friend_user_num_range", "register_days_range"};
  for (int k = 0; k < 18; ++k) names.push_back("onehot_feat" + std::to_string(k));
  for (const std::string& name : names) {
    to.push_back(user_column(name));
    to.back().embedded = true;
  }
}

void add_category_codes(std::vector<Column>& to) {
  for (const char* level : {"first", "second", "third"}) {
    const std::string name = std::string(level) + "_level_category_id";
    to.push_back({.name = name, .source = ColumnSource::kCategory, .of = name, .embedded = true});
  }
}

void add_kind_codes(std::vector<Column>& to) {
  for (const char* name : {"video_type", "upload_type", "visible_status"}) add_daily_code(name, to);
}

void add_origin_codes(std::vector<Column>& to) {
  for (const char* name : kOrigins) add_daily_code(name, to);
}

void add_daily_means(std::vector<Column>& to) {
  for (const char* name :
       {"play_cnt", "play_duration", "long_time_play_cnt", "short_time_play_cnt", "play_progress",
        "comment_stay_duration", "like_cnt", "cancel_like_cnt", "comment_cnt", "delete_comment_cnt",
        "comment_like_cnt", "follow_cnt", "cancel_follow_cnt", "share_cnt", "download_cnt"})
    to.push_back(daily_column(name, DailyReduction::kMean));
}

}  // namespace kt
