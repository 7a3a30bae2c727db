#include "trainer/exports/columns_json.h"

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "models/features/content_features.h"

namespace kt {
namespace {

using nlohmann::json;

/// The word for an enumerator, `words` in their order.
template <class E, size_t n>
std::string_view word(E value, const std::array<std::string_view, n>& words) {
  return words.at(static_cast<size_t>(value));
}

std::string_view name_of(ColumnSource source) {
  return word(source,
              std::to_array<std::string_view>(
                  {"user_features", "item_daily_features", "video_duration", "item_categories",
                   "kuairec_caption_category", "social_network", "labels"}));
}
std::string_view name_of(DailyReduction reduction) {
  return word(reduction,
              std::to_array<std::string_view>({"mean", "sum", "first", "last", "change"}));
}
std::string_view name_of(Scaling scaling) {
  return word(scaling, std::to_array<std::string_view>({"none", "standard", "robust", "min_max"}));
}
std::string_view name_of(ScaledOver over) {
  return word(over, std::to_array<std::string_view>({"entities", "training_rows"}));
}
std::string_view name_of(LabelKey key) {
  return word(key, std::to_array<std::string_view>({"global", "user", "video", "tag", "category",
                                                    "user_tag", "user_category"}));
}
std::string_view name_of(LeakageRule rule) {
  return word(rule, std::to_array<std::string_view>({"in_sample", "leave_one_out", "k_fold"}));
}
std::string_view name_of(Side side) {
  return word(side, std::to_array<std::string_view>({"user", "video", "row"}));
}

std::string_view encoding_of(const Column& column) {
  return column.source == ColumnSource::kLabels ? "label_mean"
         : column.bag > 0                       ? "bag"
         : column.embedded                      ? "code"
                                                : "number";
}

json json_of(const Column& column) {
  json made{{"name", column.name},
            {"side", name_of(side_of(column))},
            {"width", width_of(column)},
            {"source", name_of(column.source)},
            {"encoding", encoding_of(column)},
            {"missing", column.missing ? json(*column.missing) : json("median")},
            {"scaling", name_of(column.scaling)}};
  if (!column.of.empty()) made["of"] = column.of;
  if (column.scaling != Scaling::kNone) made["scaled_over"] = name_of(column.scaled_over);
  if (column.source == ColumnSource::kDailyTable) made["daily"] = name_of(column.daily);
  if (!column.per.empty()) made["per"] = column.per;
  if (column.ranges > 0) made["ranges"] = column.ranges;
  if (column.source == ColumnSource::kLabels) {
    const LabelMean& mean = column.label_mean;
    made["label_mean"] = {{"key", name_of(mean.key)},
                          {"rule", name_of(mean.rule)},
                          {"weight", mean.weight},
                          {"unseen", mean.unseen ? json(*mean.unseen) : json("global")}};
    made["scaled_over"] = name_of(ScaledOver::kTrainingRows);
  }
  return made;
}

}  // namespace

json columns_json(const Problem& problem) {
  json all = json::array();
  for (const Column& column : problem.described) all.push_back(json_of(column));
  if (reads_content(problem.config))
    all.push_back(
        {{"name", "content"},
         {"side", name_of(Side::kItem)},
         {"width", kContentFeatures},
         {"source", name_of(ColumnSource::kDailyTable)},
         {"encoding", "number"},
         {"of", content_columns()},
         {"missing",
          problem.config.data.features.missing == MissingValue::kMedian ? json("median") : json(0)},
         {"scaling", name_of(Scaling::kStandard)},
         {"scaled_over", name_of(ScaledOver::kEntities)}});
  return all;
}

}  // namespace kt
