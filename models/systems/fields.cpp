#include "models/systems/fields.h"

#include "launch/base/errors.h"
#include "models/systems/common_options.h"
#include "models/systems/table_columns.h"

namespace kt {
namespace {

constexpr int64_t kTags = 31;

int64_t columns_of(const SystemInputs& inputs, Side side) {
  return inputs.columns[static_cast<size_t>(side)];
}
const std::vector<int64_t>& codes_of(const SystemInputs& inputs, Side side) {
  return inputs.codes[static_cast<size_t>(side)];
}
/// The last of a side's columns of codes: those of so many codes that a step sums the ones it looks up alone.
int64_t origins_of(const OptionValues& values, Side side) {
  return side == Side::kItem && values.flag("video_codes") ? std::ssize(kOrigins) : 0;
}
int64_t tags_of(const OptionValues& values, Side side) {
  return side == Side::kItem && values.flag("tags") ? kTags : 0;
}

}  // namespace

void add_field_options(std::vector<OptionDeclaration>& to) {
  to.push_back(whole_option("embedding", 16, {1, 256}, "width of every embedding"));
  to.push_back(flag_option("ids", true, "embeddings of each user and each video"));
  to.push_back(flag_option("user_codes", true, "every category of the user table"));
  to.push_back(flag_option("categories", true, "the three category levels of videos"));
  to.push_back(flag_option("video_codes", true,
                           "the author, music, tag and kinds of videos in the daily table"));
  to.push_back(flag_option("tags", true, "the tags of videos: the mean of their embeddings"));
  to.push_back(
      flag_option("duration", true, "the length of videos: in 50 ranges, and its log a number"));
  to.push_back(flag_option("friends", true, "a number: how many friends a user has"));
  to.push_back(flag_option("daily", true, "numbers of the daily table, for videos: logs of means"));
  to.push_back(number_option("init_deviation", .05, {0, 100},
                             "initial deviation of embeddings (normal, cut at twice that)"));
  to.push_back(
      number_option("penalty", 0, {0, 1e6},
                    "times the squared embeddings that a row looks up, added to its loss"));
}

std::vector<Column> field_columns(const OptionValues& values) {
  std::vector<Column> columns;
  if (values.flag("user_codes")) add_user_codes(columns);
  if (values.flag("categories")) add_category_codes(columns);
  if (values.flag("video_codes")) add_kind_codes(columns);
  if (values.flag("duration")) columns.push_back(duration_ranges());
  if (values.flag("video_codes")) add_origin_codes(columns);
  const size_t codes = columns.size();
  if (values.flag("friends"))
    columns.push_back({.name = "friends", .source = ColumnSource::kFriends});
  if (values.flag("duration"))
    columns.push_back({.name = "log_duration", .source = ColumnSource::kVideoDuration});
  if (values.flag("daily")) add_daily_means(columns);
  for (size_t k = codes; k < columns.size(); ++k) {
    columns[k].missing = std::nullopt;
    columns[k].logarithm = true;
    columns[k].scaling = Scaling::kStandard;
  }
  if (values.flag("tags"))
    columns.push_back({.name = "tags", .source = ColumnSource::kTags, .bag = kTags, .mean = true});
  return columns;
}

int embed_fields(Layers& m, const std::string& name, const OptionValues& values,
                 const SystemInputs& inputs, int64_t width) {
  const double deviation = values.number("init_deviation");
  std::vector<int> all;
  if (values.flag("ids")) {
    all.push_back(m.user_table(name + "user", inputs.users, width, deviation));
    all.push_back(m.item_table(name + "video", inputs.items, width, deviation));
  }
  for (const Side side : {Side::kUser, Side::kItem}) {
    const std::string of = side == Side::kUser ? "user" : "video";
    std::vector<int64_t> codes = codes_of(inputs, side);
    for (int64_t k = origins_of(values, side) - 1; k >= 0; --k) {
      const int64_t column = std::ssize(codes) - 1;
      all.push_back(
          m.shared_table(name + kOrigins[k], inputs.items, column, codes.back(), width, deviation));
      codes.pop_back();
    }
    if (!codes.empty())
      all.push_back(m.lookup(name + of + "_codes", m.columns(side, 0, std::ssize(codes)), 0, codes,
                             width, deviation));
    if (const int64_t tags = tags_of(values, side); tags > 0)
      all.push_back(m.bag(name + of + "_tags",
                          m.columns(side, columns_of(inputs, side) - tags, tags), width,
                          deviation));
  }
  if (all.empty())
    user_error(
        "model.ids: got false, and no other field is chosen: the model reads nothing of a row; "
        "set it to true, or choose model.user_codes, model.categories, model.tags or "
        "model.duration");
  m.penalize_rows(values.number("penalty"));
  m.penalize_codes(values.number("penalty"));
  return m.concat(all);
}

std::vector<int> numbers_of_row(Layers& m, const OptionValues& values, const SystemInputs& inputs) {
  std::vector<int> all;
  for (const Side side : {Side::kUser, Side::kItem}) {
    const auto codes = std::ssize(codes_of(inputs, side));
    const int64_t numbers = columns_of(inputs, side) - codes - tags_of(values, side);
    if (numbers > 0) all.push_back(m.columns(side, codes, numbers));
  }
  return all;
}

}  // namespace kt
