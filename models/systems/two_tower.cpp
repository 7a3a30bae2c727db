#include "models/systems/two_tower.h"

#include <numeric>
#include <string>

#include "launch/base/errors.h"
#include "models/systems/common_options.h"
#include "models/systems/hidden_layers.h"
#include "models/systems/table_columns.h"

namespace kt {
namespace {

/// What both forms read.
void add_input_options(std::vector<OptionDeclaration>& to, double missing) {
  to.push_back(word_option("user_columns", "numbers", {"numbers", "codes", "none"},
                           "of the user table: the numbers of the reference system, or every "
                           "category as a code with an embedding"));
  to.push_back(flag_option("friends", false, "how many friends a user has"));
  to.push_back(flag_option("daily", true, "numbers of the daily table, for videos"));
  to.push_back(flag_option("categories", false,
                           "the three category levels of videos, as codes with embeddings"));
  to.push_back(flag_option("tags", false, "the tags of videos"));
  to.push_back(flag_option("duration", false, "the length of videos"));
  to.push_back(number_option("missing", missing, {-1e6, 1e6}, "what a missing number is"));
  to.push_back(whole_option("code_embedding", 8, {1, 256}, "width of a code's embedding"));
  to.push_back(flag_option("user_ids", false, "an embedding of each user beside its columns"));
  to.push_back(flag_option("video_ids", false, "an embedding of each video beside its columns"));
  to.push_back(whole_option("embedding", 32, {1, 4096}, "width of the embeddings of ids"));
  add_init_options(to, "rows");
  to.push_back(penalty_option());
}

/// Numbers, scaled over training rows as the reference system does; `numbers_from` is where they begin.
void scale(const OptionValues& values, size_t numbers_from, std::vector<Column>& columns) {
  for (size_t k = numbers_from; k < columns.size(); ++k) {
    columns[k].missing = values.number("missing");
    columns[k].scaling = Scaling::kStandard;
  }
}

std::vector<Column> columns_of(const OptionValues& values, bool hybrid) {
  std::vector<Column> columns;
  if (values.word("user_columns") == "codes") add_user_codes(columns);
  if (values.flag("categories")) add_category_codes(columns);
  if (values.flag("duration")) columns.push_back(duration_ranges());
  const size_t codes = columns.size();
  if (values.word("user_columns") == "numbers") {
    if (hybrid) {
      columns.push_back(user_column("user_active_degree"));
      columns.push_back(user_column("follow_user_num"));
    }
    for (int k = 0; k < 18; ++k) columns.push_back(user_column("onehot_feat" + std::to_string(k)));
  }
  if (values.flag("friends"))
    columns.push_back({.name = "friends", .source = ColumnSource::kFriends});
  if (values.flag("daily") && hybrid) {
    for (const char* name : {"play_cnt", "share_cnt", "download_cnt", "comment_cnt"})
      columns.push_back(daily_column(name, DailyReduction::kSum));
    for (const char* name : {"upload_type", "author_id", "video_duration"})
      columns.push_back(daily_column(name, DailyReduction::kFirst));
  } else if (values.flag("daily")) {
    for (const char* name : {"music_id", "video_tag_id"})
      columns.push_back(daily_column(name, DailyReduction::kLast));
    add_daily_means(columns);
  }
  scale(values, codes, columns);
  if (values.flag("tags"))
    columns.push_back({.name = "tags", .source = ColumnSource::kTags, .bag = 31});
  return columns;
}
std::vector<Column> two_tower_columns(const OptionValues& values) {
  return columns_of(values, false);
}
std::vector<Column> hybrid_columns(const OptionValues& values) { return columns_of(values, true); }

/// The input of a tower: embeddings of codes and of ids, and numbers, side by side.
int input_of(Layers& m, const OptionValues& values, const SystemInputs& inputs, Side side) {
  const bool is_user = side == Side::kUser;
  const std::string name = is_user ? "user" : "video";
  const std::vector<int64_t>& codes = inputs.codes[static_cast<size_t>(side)];
  const int64_t columns = inputs.columns[static_cast<size_t>(side)];
  std::vector<int> parts;
  if (values.flag(name + "_ids")) {
    const int64_t width = values.whole("embedding");
    parts.push_back(
        is_user
            ? m.user_table("user_embedding", inputs.users, width, user_deviation(values, inputs))
            : m.item_table("video_embedding", inputs.items, width, item_deviation(values, inputs)));
  }
  if (!codes.empty())
    parts.push_back(m.lookup(name + "_codes", m.columns(side, 0, std::ssize(codes)), 0, codes,
                             values.whole("code_embedding"), .05));
  if (const int64_t numbers = columns - std::ssize(codes); numbers > 0)
    parts.push_back(m.columns(side, std::ssize(codes), numbers));
  if (parts.empty())
    user_error(
        "model.{}_ids: got false, and the tower of {}s reads no columns: it has no input; set it "
        "to "
        "true, or choose columns ({})",
        name, name,
        is_user ? "model.user_columns, model.friends"
                : "model.daily, model.categories, model.tags, model.duration");
  return parts.size() == 1 ? parts[0] : m.concat(parts);
}

std::vector<OptionDeclaration> two_tower_options() {
  std::vector<OptionDeclaration> all = {
      list_option("hidden", {256, 128, 96}, {1, 65536}, "widths of a tower's hidden layers"),
      whole_option("width", 48, {1, 4096}, "of a tower's output"),
      flag_option("normalize", true, "outputs of length 1"),
      flag_option("biases", false,
                  "a bias from each tower, and one of all; bpr, softmax: from that of videos"),
      number_option("dropout", 0, {0, .99}, "probability of a zero after each hidden layer")};
  add_input_options(all, 0);
  add_objective_options(all, {.target = TargetKind::kRange, .low = -1, .high = 1});
  return all;
}

System two_tower(const OptionValues& values, const SystemInputs& inputs) {
  const Objective objective = objective_of(values);
  Layers m;
  const int64_t width = values.whole("width");
  std::vector<int> outputs, biases;
  for (const Side side : {Side::kUser, Side::kItem}) {
    const std::string name = side == Side::kUser ? "user" : "video";
    const int x = hidden_layers(m, name, input_of(m, values, inputs, side), values.list("hidden"),
                                values.number("dropout"));
    const int output = m.dense(name + "_output", x, width);
    outputs.push_back(values.flag("normalize") ? m.l2_normalize(output) : output);
    if (values.flag("biases") && !(objective.ranks() && side == Side::kUser))
      biases.push_back(m.dense(name + "_bias", x, 1));
  }
  const int product = m.dot(outputs[0], outputs[1]);
  if (values.flag("biases") && objective.ranks())
    m.add(product, biases[0]);
  else if (values.flag("biases"))
    m.bias("bias", m.add(product, m.add(biases[0], biases[1])), Initializer::kTargetMean);
  m.penalize_rows(values.number("penalty"));
  return {std::move(m), objective};
}

std::vector<OptionDeclaration> hybrid_options() {
  std::vector<OptionDeclaration> all = {
      list_option("hidden", {128, 64, 32}, {1, 65536}, "widths of a tower's layers"),
      list_option("top", {64, 32}, {1, 65536}, "widths of the layers over both towers"),
      number_option("dropout", .3, {0, .99}, "probability of a zero after each layer of a tower"),
      number_option("top_dropout", .2, {0, .99}, "after each layer over both")};
  add_input_options(all, -1);
  add_objective_options(all, {.target = TargetKind::kStandard});
  return all;
}

System hybrid(const OptionValues& values, const SystemInputs& inputs) {
  Layers m;
  std::vector<int> towers;
  for (const Side side : {Side::kUser, Side::kItem})
    towers.push_back(hidden_layers(m, side == Side::kUser ? "user" : "video",
                                   input_of(m, values, inputs, side), values.list("hidden"),
                                   values.number("dropout")));
  const int x =
      hidden_layers(m, "top", m.concat(towers), values.list("top"), values.number("top_dropout"));
  m.dense("output", x, 1);
  m.penalize_rows(values.number("penalty"));
  return {std::move(m), objective_of(values)};
}

}  // namespace

SystemEntry two_tower_entry() {
  return {"two_tower", "a tower for users, one for videos, their dot", two_tower_options, two_tower,
          two_tower_columns};
}

SystemEntry two_tower_hybrid_entry() {
  return {"two_tower_hybrid", "a tower for users, one for videos, a network over both",
          hybrid_options, hybrid, hybrid_columns};
}

}  // namespace kt
