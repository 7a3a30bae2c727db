#include "models/systems/feature_mlp.h"

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

System make(const OptionValues& values, const SystemInputs& inputs) {
  Layers m;
  int x = m.columns(Side::kRow, 0, inputs.columns[static_cast<size_t>(Side::kRow)]);
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
  return {"feature_mlp", "one small network over label means of rows", options, make};
}

}  // namespace kt
