#include "models/systems/cosine.h"

#include "launch/base/errors.h"

namespace kt {
namespace {

constexpr int64_t kTags = 31;

std::vector<OptionDeclaration> options() {
  return {
      flag_option(
          "daily", true,
          "what viewers did, of the daily table: shares of completed, valid and long plays, "
          "of likes, comments, shares, follows, reports and calls for fewer, and the trend"),
      flag_option("tags", true, "the tags of videos"),
      flag_option("duration", false, "the length of videos"),
  };
}

/// The sum of one column of the daily table, as a share of that of plays.
Column of_plays(const std::string& name) {
  return {.name = name + "_per_play",
          .source = ColumnSource::kDailyTable,
          .of = name,
          .daily = DailyReduction::kSum,
          .per = "play_cnt",
          .missing = std::nullopt,
          .scaling = Scaling::kStandard,
          .scaled_over = ScaledOver::kEntities};
}

std::vector<Column> columns(const OptionValues& values) {
  std::vector<Column> all;
  if (values.flag("daily")) {
    for (const char* name :
         {"complete_play_cnt", "valid_play_cnt", "long_time_play_cnt", "like_cnt", "comment_cnt",
          "share_cnt", "follow_cnt", "report_cnt", "reduce_similar_cnt"})
      all.push_back(of_plays(name));
    all.push_back(of_plays("play_cnt"));
    all.back().name = "trend";
    all.back().daily = DailyReduction::kChange;
  }
  if (values.flag("duration"))
    all.push_back({.name = "video_duration",
                   .source = ColumnSource::kVideoDuration,
                   .missing = std::nullopt,
                   .scaling = Scaling::kStandard,
                   .scaled_over = ScaledOver::kEntities});
  if (values.flag("tags"))
    all.push_back({.name = "tags", .source = ColumnSource::kTags, .bag = kTags});
  return all;
}

System make(const OptionValues&, const SystemInputs& inputs) {
  const int64_t width = inputs.columns[static_cast<size_t>(Side::kItem)];
  if (width == 0)
    user_error(
        "model: cosine has nothing to compare videos by; set model.daily, model.tags "
        "or model.duration to true");
  Layers m;
  const int profile = m.l2_normalize(m.user_table(kProfiles, inputs.users, width, 0));
  m.dot(profile, m.l2_normalize(m.columns(Side::kItem, 0, width)));
  return {.graph = std::move(m), .objective = {.order_alone = true}, .profiles = true};
}

}  // namespace

SystemEntry cosine_entry() {
  return {"cosine", "content of videos beside the mean of what a user watched", options, make,
          columns};
}

}  // namespace kt
