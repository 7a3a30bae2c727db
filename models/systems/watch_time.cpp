#include "models/systems/watch_time.h"

#include <memory>
#include <string>
#include <utility>

#include "models/graph/watch_time.h"
#include "models/systems/fields.h"
#include "models/systems/hidden_layers.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> backbone_options() {
  std::vector<OptionDeclaration> all = {
      list_option("hidden", {256, 128, 64}, {1, 65536}, "widths of the hidden layers"),
      number_option("dropout", .2, {0, .99}, "probability of a zero after each hidden layer")};
  add_field_options(all);
  return all;
}

/// A head of so many outputs, and what comes of them.
System with_head(const OptionValues& values, const SystemInputs& inputs, Objective objective,
                 WatchTimeFit fit = {}) {
  Layers m;
  std::vector<int> read = {embed_fields(m, "", values, inputs, values.whole("embedding"))};
  for (const int numbers : numbers_of_row(m, values, inputs)) read.push_back(numbers);
  const int x =
      hidden_layers(m, "hidden", m.concat(read), values.list("hidden"), values.number("dropout"));
  const int output = m.dense("output", x, objective.outputs);
  if (objective.target == TargetKind::kPlayShare) m.sigmoid(output);
  System system{std::move(m), objective};
  system.watch_time = std::move(fit);
  return system;
}

std::vector<OptionDeclaration> d2q_options() {
  std::vector<OptionDeclaration> all = backbone_options();
  all.push_back(
      whole_option("ranges", 50, {1, 1000}, "of video duration, of equal counts of training rows"));
  all.push_back(whole_option("steps", 100, {1, 10000},
                             "between the quantiles of play times that each range has"));
  return all;
}
System make_d2q(const OptionValues& values, const SystemInputs& inputs) {
  return with_head(values, inputs, {.loss = Loss::kSquared, .target = TargetKind::kPlayShare},
                   {.ranges = values.whole("ranges"), .steps = values.whole("steps")});
}

System make_wlr(const OptionValues& values, const SystemInputs& inputs) {
  return with_head(values, inputs, {.loss = Loss::kOdds, .target = TargetKind::kPlayTime});
}

std::vector<OptionDeclaration> cread_options() {
  std::vector<OptionDeclaration> all = backbone_options();
  all.push_back(whole_option("levels", 50, {2, 1000},
                             "of play time, each an output: the chance that it is longer"));
  all.push_back(number_option("error_weight", 1, {0, 1e6},
                              "of the Huber error of the play time that the outputs make"));
  all.push_back(number_option("order_weight", 2e-5, {0, 1e6},
                              "of what the chance of a level is above that of the one before"));
  return all;
}
System make_cread(const OptionValues& values, const SystemInputs& inputs) {
  const int64_t count = values.whole("levels");
  const auto levels = std::make_shared<std::vector<float>>(2 * count);
  return with_head(values, inputs,
                   {.loss = Loss::kLevels,
                    .target = TargetKind::kPlayTime,
                    .outputs = count,
                    .error_weight = values.number("error_weight"),
                    .shape_weight = values.number("order_weight"),
                    .levels = levels->data()},
                   {.levels = levels});
}

std::vector<OptionDeclaration> cqe_options() {
  std::vector<OptionDeclaration> all = backbone_options();
  all.push_back(whole_option("quantiles", 100, {1, 1000}, "of play time, each an output"));
  all.push_back(number_option("quantile", 0, {0, .999},
                              "that is predicted, as .5, the median; 0: the mean of all"));
  return all;
}
System make_cqe(const OptionValues& values, const SystemInputs& inputs) {
  return with_head(values, inputs,
                   {.loss = Loss::kQuantiles,
                    .target = TargetKind::kPlayTime,
                    .outputs = values.whole("quantiles"),
                    .quantile = values.number("quantile")});
}

std::vector<OptionDeclaration> egmn_options() {
  std::vector<OptionDeclaration> all = backbone_options();
  all.push_back(whole_option("gaussians", 10, {1, kMostGaussians}, "beside the exponential"));
  all.push_back(number_option("error_weight", 1, {0, 1e6},
                              "of the absolute error of the play time that the outputs make"));
  all.push_back(
      number_option("entropy_weight", .1, {0, 1e6}, "of the negative entropy of the weights"));
  return all;
}
System make_egmn(const OptionValues& values, const SystemInputs& inputs) {
  return with_head(values, inputs,
                   {.loss = Loss::kMixture,
                    .target = TargetKind::kPlayTime,
                    .outputs = outputs_of(values.whole("gaussians")),
                    .error_weight = values.number("error_weight"),
                    .shape_weight = values.number("entropy_weight")});
}

}  // namespace

std::vector<SystemEntry> watch_time_entries() {
  return {{"d2q", "play time: its quantile among videos of like duration", d2q_options, make_d2q,
           field_columns},
          {"wlr", "play time: as the odds of a weighted logistic regression", backbone_options,
           make_wlr, field_columns},
          {"cread", "play time: from the chances that it is above levels", cread_options,
           make_cread, field_columns},
          {"cqe", "play time: from its quantiles", cqe_options, make_cqe, field_columns},
          {"egmn", "play time: as a mixture of an exponential and Gaussians", egmn_options,
           make_egmn, field_columns}};
}

}  // namespace kt
