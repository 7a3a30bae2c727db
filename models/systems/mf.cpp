#include "models/systems/mf.h"

#include "models/systems/common_options.h"

namespace kt {

std::vector<OptionDeclaration> mf_options(const Objective& standard) {
  std::vector<OptionDeclaration> all = {
      whole_option("embedding", 64, {1, 4096}, "factors of a user and of a video"),
      flag_option("biases", true,
                  "a bias of each user and video, and one of all; bpr, softmax: of each video"),
      penalty_option(),
  };
  add_init_options(all, "given");
  add_objective_options(all, standard);
  return all;
}

Layers mf_graph(const OptionValues& values, const SystemInputs& inputs,
                const Objective& objective) {
  const int64_t width = values.whole("embedding");
  Layers m;
  const int user = m.user_table("user", inputs.users, width, user_deviation(values, inputs));
  const int item = m.item_table("video", inputs.items, width, item_deviation(values, inputs));
  const int product = m.dot(user, item);
  if (values.flag("biases") && objective.ranks()) {
    m.add(product, m.item_table("video_bias", inputs.items, 1, 0));
  } else if (values.flag("biases")) {
    const int of_user = m.user_table("user_bias", inputs.users, 1, 0);
    const int of_item = m.item_table("video_bias", inputs.items, 1, 0);
    m.bias("bias", m.add(product, m.add(of_user, of_item)), Initializer::kTargetMean);
  }
  m.penalize_rows(values.number("penalty"));
  return m;
}

namespace {

std::vector<OptionDeclaration> options() { return mf_options({}); }
std::vector<OptionDeclaration> bpr_options() {
  return mf_options({.loss = Loss::kBpr, .target = TargetKind::kPositive, .threshold = 1});
}
std::vector<OptionDeclaration> softmax_options() {
  return mf_options({.loss = Loss::kSoftmax,
                     .target = TargetKind::kPositive,
                     .threshold = 1,
                     .negatives = NegativeKind::kPopularity,
                     .negative_count = 31});
}

System make(const OptionValues& values, const SystemInputs& inputs) {
  const Objective objective = objective_of(values);
  return {mf_graph(values, inputs, objective), objective};
}

}  // namespace

SystemEntry mf_entry() {
  return {"mf", "matrix factorisation with biases, of rows", options, make};
}

SystemEntry bpr_entry() {
  return {"bpr", "matrix factorisation, of pairs of a liked and a drawn video", bpr_options, make};
}

SystemEntry softmax_entry() {
  return {"softmax", "matrix factorisation, of a liked video among drawn ones", softmax_options,
          make};
}

}  // namespace kt
