#include "models/systems/ncf.h"

#include "models/systems/common_options.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> options() {
  std::vector<OptionDeclaration> all = {
      whole_option("embedding", 32, {1, 4096}, "width of the embeddings of users and videos"),
      number_option("dropout", .2, {0, .99}, "probability of a zero after the first hidden layer"),
      word_option("content", "daily", {"daily", "none"},
                  "content features: of the daily table, or none"),
      penalty_option(),
  };
  add_init_options(all, "rows");
  add_objective_options(all, {});
  return all;
}

System make(const OptionValues& values, const SystemInputs& inputs) {
  const int64_t width = values.whole("embedding");
  Layers m;
  std::vector<int> parts = {
      m.user_table("user_embedding", inputs.users, width, user_deviation(values, inputs)),
      m.item_table("video_embedding", inputs.items, width, item_deviation(values, inputs))};
  if (const int64_t columns = inputs.columns[static_cast<size_t>(Side::kItem)]; columns > 0)
    parts.push_back(m.relu(m.dense("content", m.columns(Side::kItem, 0, columns), 32)));
  int x = m.relu(m.dense("hidden1", m.concat(parts), 32));
  if (const double dropout = values.number("dropout"); dropout > 0) x = m.dropout(x, dropout);
  x = m.relu(m.dense("hidden2", x, 16));
  m.dense("output", x, 1);
  m.penalize_rows(values.number("penalty"));
  return {std::move(m), objective_of(values)};
}

bool content(const OptionValues& values) { return values.word("content") == "daily"; }

}  // namespace

SystemEntry ncf_entry() {
  return {"ncf",  "regression on ids and content by a small network", options, make, nullptr,
          content};
}

}  // namespace kt
