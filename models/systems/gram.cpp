#include "models/systems/gram.h"

#include "launch/base/errors.h"
#include "models/systems/common_options.h"
#include "models/systems/means.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> input_options(const char* standard) {
  return {
      word_option("input", standard, {"binary", "ratio", "residual"},
                  "what the matrix has for a training pair: whether it is positive, its label, "
                  "or the label less means of user and video"),
      number_option("threshold", 1, {-1e30, 1e30}, "binary: the least label that is a positive")};
}

Objective objective_of_input(const OptionValues& values) {
  const std::string& input = values.word("input");
  if (input == "binary")
    return {.target = TargetKind::kPositive, .threshold = values.number("threshold")};
  return {.order_alone = input == "ratio"};
}

/// The system whose last layer, `score`, is made by `make_score`, with the means that the input is less of.
template <class MakeScore>
System make(const OptionValues& values, const SystemInputs& inputs, const GramFit& fit,
            MakeScore&& make_score) {
  System system{.graph = {}, .objective = objective_of_input(values), .gram = fit};
  Layers& m = system.graph;
  if (values.word("input") != "residual") {
    make_score(m);
    return system;
  }
  system.means = additive_means_fit();
  const int means = add_means(m, inputs);
  m.add(means, make_score(m));
  return system;
}

std::vector<OptionDeclaration> ease_options() {
  std::vector<OptionDeclaration> all = input_options("binary");
  all.push_back(number_option("regularization", 500, {1e-6, 1e12},
                              "added to the diagonal of the Gram matrix"));
  all.push_back(
      flag_option("exclude_block", false,
                  "weights of tested videos from users who are not tested: the block that "
                  "training lacks says nothing; it reads which pairs are tested"));
  return all;
}

System ease(const OptionValues& values, const SystemInputs& inputs) {
  System system = make(values, inputs,
                       {.regularization = values.number("regularization"),
                        .exclude_block = values.flag("exclude_block")},
                       [](Layers& m) { return m.columns(Side::kRow, 0, 1); });
  system.history_weights = {.name = "weights",
                            .kind = ParameterKind::kItemTable,
                            .rows = inputs.items,
                            .cols = inputs.items_with_rows,
                            .trained = false};
  return system;
}

std::vector<OptionDeclaration> svd_options() {
  std::vector<OptionDeclaration> all = input_options("ratio");
  all.push_back(whole_option("rank", 50, {1, 4096}, "singular vectors"));
  return all;
}

System svd(const OptionValues& values, const SystemInputs& inputs) {
  const int64_t rank = values.whole("rank");
  if (rank > inputs.items_with_rows)
    user_error("model.rank: got {}, expected at most {}, the number of videos with training rows",
               rank, inputs.items_with_rows);
  return make(values, inputs, {.rank = rank}, [&](Layers& m) {
    const int user = m.user_table("user_factors", inputs.users, rank, 0);
    return m.dot(user, m.item_table("video_factors", inputs.items, rank, 0));
  });
}

}  // namespace

std::vector<SystemEntry> gram_entries() {
  return {{"ease", "a linear model of a user's other rows, in closed form", ease_options, ease},
          {"svd", "the user's rows on the largest singular vectors", svd_options, svd}};
}

}  // namespace kt
