#include "models/systems/gbdt.h"

#include <span>
#include <vector>

#include "launch/base/errors.h"
#include "models/systems/table_columns.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> options() {
  return {
      word_option(
          "objective", "regression", {"regression", "lambdarank"},
          "what trees are to find: the label, or an order of each user's rows, the greatest "
          "labels first"),
      whole_option("trees", 200, {1, 10000}, "how many there are, one after the other"),
      whole_option("leaves", 15, {2, 1024}, "of a tree, at most"),
      number_option("learning_rate", .04, {1e-6, 1}, "times what a tree says"),
      whole_option("leaf_rows", 50, {1, 1'000'000'000}, "of a leaf, at least"),
      number_option("column_share", .6, {1e-3, 1}, "of the columns, drawn for each tree"),
      number_option("l2", 5, {0, 1e9}, "rows of 0 that a leaf has beside its own"),
      number_option("shrink", 5, {0, 1e9}, "rows that the mean of all counts for beside a group's"),
      flag_option("tags", true, "the tags of videos, and the mean of the user and each of them"),
      flag_option("categories", true,
                  "the three category levels of videos, and the mean of the user and the first"),
      flag_option("duration", true, "the length of videos"),
      flag_option("user_columns", false, "every category of the user table")};
}

std::vector<Column> columns(const OptionValues& values) {
  std::vector<Column> all;
  const auto mean = [&](const char* name, LabelKey key, LabelOf of) {
    all.push_back({.name = name,
                   .source = ColumnSource::kLabels,
                   .label_mean = {.key = key, .of = of, .weight = values.number("shrink")}});
  };
  // Trees split codes as numbers.
  const auto codes = [&](void (&add)(std::vector<Column>&)) {
    const size_t first = all.size();
    add(all);
    for (Column& column : std::span(all).subspan(first)) {
      column.embedded = false;
      column.missing = -1;
    }
  };
  mean("video", LabelKey::kItem, LabelOf::kLabel);
  mean("user", LabelKey::kUser, LabelOf::kResidual);
  mean("video_spread", LabelKey::kItem, LabelOf::kSquaredResidual);
  mean("user_spread", LabelKey::kUser, LabelOf::kSquaredResidual);
  if (values.flag("tags")) {
    mean("user_tag", LabelKey::kUserTag, LabelOf::kResidual);
    all.push_back({.name = "tags", .source = ColumnSource::kTags, .bag = 31});
  }
  if (values.flag("categories")) {
    mean("user_category", LabelKey::kUserCategory, LabelOf::kResidual);
    codes(add_category_codes);
  }
  if (values.flag("duration"))
    all.push_back({.name = "video_duration", .source = ColumnSource::kVideoDuration});
  if (values.flag("user_columns")) codes(add_user_codes);
  return all;
}

System make(const OptionValues& values, const SystemInputs&) {
  const bool ranks = values.word("objective") == "lambdarank";
  Layers m;
  m.columns(Side::kRow, 0, 1);
  return {.graph = std::move(m),
          .objective = {.order_alone = ranks},
          .trees = TreesFit{.shape = {values.whole("trees"), values.whole("leaves")},
                            .learning_rate = values.number("learning_rate"),
                            .leaf_rows = values.whole("leaf_rows"),
                            .column_share = values.number("column_share"),
                            .l2 = values.number("l2"),
                            .ranks = ranks}};
}

}  // namespace

SystemEntry gbdt_entry() {
  return {"gbdt", "gradient-boosted trees over label means and side columns", options, make,
          columns};
}

}  // namespace kt
