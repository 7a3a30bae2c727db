#include "models/systems/feature_mlp.h"

#include <string>

#include "models/systems/common_options.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> options() {
  std::vector<OptionDeclaration> all = {
      word_option(
          "encoding", "k_fold", {"in_sample", "leave_one_out", "k_fold"},
          "which labels the means of a training row see: all; all but its own; those of the "
          "other four fifths of pairs"),
      number_option("shrink", 0, {0, 1e9}, "rows that the mean of all counts for beside a group's"),
      flag_option("unseen_is_zero", false,
                  "a group without rows is 0, as in the reference system, not the mean"),
      flag_option("tags", true, "the mean of the user and each tag of the video"),
      flag_option("categories", true, "the mean of the user and the video's first category"),
      flag_option("duration", true, "the video's length"),
      list_option("hidden", {64}, {1, 65536}, "widths of the hidden layers"),
      flag_option("batch_norm", true, "a batch norm after each"),
      number_option("dropout", .2, {0, .99}, "probability of a zero after each"),
      number_option("output", 5, {0, 1e6},
                    "the output is this times a logistic; 0: the last layer's own")};
  add_objective_options(all, {});
  return all;
}

std::vector<Column> columns(const OptionValues& values) {
  const std::string& encoding = values.word("encoding");
  const auto mean = [&](const char* name, LabelKey key) {
    Column column{.name = name, .source = ColumnSource::kLabels, .scaling = Scaling::kRobust};
    column.label_mean = {.key = key,
                         .rule = encoding == "in_sample"       ? LeakageRule::kInSample
                                 : encoding == "leave_one_out" ? LeakageRule::kLeaveOneOut
                                                               : LeakageRule::kKFold,
                         .weight = values.number("shrink")};
    if (values.flag("unseen_is_zero")) column.label_mean.unseen = 0;
    return column;
  };
  std::vector<Column> all = {mean("video", LabelKey::kItem), mean("user", LabelKey::kUser)};
  if (values.flag("tags")) all.push_back(mean("user_tag", LabelKey::kUserTag));
  if (values.flag("categories")) all.push_back(mean("user_category", LabelKey::kUserCategory));
  if (values.flag("duration"))
    all.push_back({.name = "video_duration",
                   .source = ColumnSource::kVideoDuration,
                   .scaling = Scaling::kRobust});
  return all;
}

System make(const OptionValues& values, const SystemInputs& inputs) {
  Layers m;
  int x = m.columns(Side::kRow, 0, inputs.columns[static_cast<size_t>(Side::kRow)]);
  if (const int64_t videos = inputs.columns[static_cast<size_t>(Side::kItem)]; videos > 0)
    x = m.concat({x, m.columns(Side::kItem, 0, videos)});
  int number = 0;
  for (const int64_t width : values.list("hidden")) {
    const std::string name = std::to_string(++number);
    x = m.relu(m.dense("hidden" + name, x, width));
    if (values.flag("batch_norm")) x = m.batch_norm("norm" + name, x, .99, 1e-3);
    if (values.number("dropout") > 0) x = m.dropout(x, values.number("dropout"));
  }
  x = m.dense("output", x, 1);
  if (const double output = values.number("output"); output > 0) m.scale(m.sigmoid(x), output);
  return {std::move(m), objective_of(values)};
}

}  // namespace

SystemEntry feature_mlp_entry() {
  return {"feature_mlp", "one small network over label means of rows", options, make, columns};
}

}  // namespace kt
