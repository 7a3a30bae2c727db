#include "trainer/planning/kuairec_counts.h"

#include <map>
#include <string>

#include "launch/base/errors.h"

namespace kt {
namespace {

/// Values that are not missing, by the name in its table.
const std::map<std::string, int64_t> kValues = {{"user_active_degree", 4},
                                                {"is_lowactive_period", 2},
                                                {"is_live_streamer", 2},
                                                {"is_video_author", 2},
                                                {"follow_user_num_range", 8},
                                                {"fans_user_num_range", 7},
                                                {"friend_user_num_range", 7},
                                                {"register_days_range", 7},
                                                {"onehot_feat0", 2},
                                                {"onehot_feat1", 8},
                                                {"onehot_feat2", 30},
                                                {"onehot_feat3", 1076},
                                                {"onehot_feat4", 12},
                                                {"onehot_feat5", 10},
                                                {"onehot_feat6", 3},
                                                {"onehot_feat7", 47},
                                                {"onehot_feat8", 340},
                                                {"onehot_feat9", 7},
                                                {"onehot_feat10", 5},
                                                {"onehot_feat11", 3},
                                                {"onehot_feat12", 2},
                                                {"onehot_feat13", 2},
                                                {"onehot_feat14", 2},
                                                {"onehot_feat15", 2},
                                                {"onehot_feat16", 2},
                                                {"onehot_feat17", 2},
                                                {"first_level_category_id", 38},
                                                {"second_level_category_id", 137},
                                                {"third_level_category_id", 219},
                                                {"author_id", 8369},
                                                {"music_id", 8495},
                                                // Not published: at least as many as there are.
                                                {"video_tag_id", 10728},
                                                {"video_type", 2},
                                                {"upload_type", 30},
                                                {"visible_status", 3}};

}  // namespace

std::vector<int64_t> kuairec_codes(std::span<const Column> columns, Side side) {
  std::vector<int64_t> codes;
  for (const Column& column : columns) {
    if (!column.embedded || side_of(column) != side) continue;
    const auto values = kValues.find(column.of);
    KT_CHECK(column.ranges > 0 || values != kValues.end(), "no count of KuaiRec for {}",
             column.name);
    codes.push_back(1 + (column.ranges > 0 ? column.ranges : values->second));
  }
  return codes;
}

}  // namespace kt
