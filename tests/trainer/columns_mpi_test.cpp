#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "io/synth/synth.h"
#include "tests/trainer/small_problem.h"
#include "trainer/features/columns.h"
#include "trainer/features/row_scale.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kShards = 8;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

Column label_mean(std::string name, LabelKey key, LeakageRule rule, double weight = 0) {
  return {.name = std::move(name),
          .source = ColumnSource::kLabels,
          .scaling = Scaling::kRobust,
          .label_mean = {.key = key, .rule = rule, .weight = weight}};
}

/// Of every source, encoding and scaling.
std::vector<Column> all_kinds() {
  std::vector<Column> columns{
      {.name = "activity",
       .source = ColumnSource::kUserTable,
       .of = "user_active_degree",
       .missing = -1},
      {.name = "feat4",
       .source = ColumnSource::kUserTable,
       .of = "onehot_feat4",
       .scaling = Scaling::kStandard},
      {.name = "days",
       .source = ColumnSource::kUserTable,
       .of = "register_days",
       .scaling = Scaling::kMinMax,
       .scaled_over = ScaledOver::kEntities},
      {.name = "friends", .source = ColumnSource::kFriends, .scaling = Scaling::kStandard},
      {.name = "music",
       .source = ColumnSource::kDailyTable,
       .of = "music_id",
       .daily = DailyReduction::kLast,
       .scaling = Scaling::kStandard},
      {.name = "tags", .source = ColumnSource::kTags, .bag = 31},
      {.name = "shares_of_tags", .source = ColumnSource::kTags, .bag = 31, .mean = true},
      {.name = "plays",
       .source = ColumnSource::kDailyTable,
       .of = "play_cnt",
       .logarithm = true,
       .missing = std::nullopt,
       .scaling = Scaling::kRobust},
      {.name = "length", .source = ColumnSource::kVideoDuration, .scaling = Scaling::kRobust},
      {.name = "level2",
       .source = ColumnSource::kCategory,
       .of = "second_level_category_id",
       .missing = -124},
      {.name = "shares",
       .source = ColumnSource::kDailyTable,
       .of = "share_cnt",
       .daily = DailyReduction::kSum,
       .scaling = Scaling::kStandard,
       .scaled_over = ScaledOver::kEntities},
      {.name = "trend",
       .source = ColumnSource::kDailyTable,
       .of = "like_cnt",
       .daily = DailyReduction::kChange,
       .per = "report_cnt",
       .missing = std::nullopt,
       .scaling = Scaling::kRobust}};
  const LeakageRule rules[] = {LeakageRule::kInSample, LeakageRule::kLeaveOneOut,
                               LeakageRule::kKFold};
  for (const LeakageRule rule : rules)
    for (const LabelKey key : {LabelKey::kGlobal, LabelKey::kUser, LabelKey::kItem, LabelKey::kTag,
                               LabelKey::kCategory, LabelKey::kUserTag, LabelKey::kUserCategory}) {
      Column column =
          label_mean(fmt::format("mean{}{}", static_cast<int>(key), static_cast<int>(rule)), key,
                     rule, key == LabelKey::kItem ? 3 : 0);
      if (key == LabelKey::kGlobal) column.scaling = Scaling::kNone;
      if (key == LabelKey::kTag) column.scaling = Scaling::kStandard;
      if (key == LabelKey::kCategory) column.scaling = Scaling::kMinMax;
      if (key == LabelKey::kUserTag) column.scaling = Scaling::kNone;
      if (key == LabelKey::kUserCategory) column.label_mean.unseen = 0;
      columns.push_back(column);
    }
  for (const LabelOf of : {LabelOf::kResidual, LabelOf::kSquaredResidual})
    for (const LabelKey key : {LabelKey::kUser, LabelKey::kItem, LabelKey::kUserTag}) {
      Column column =
          label_mean(fmt::format("rest{}{}", static_cast<int>(key), static_cast<int>(of)), key,
                     LeakageRule::kKFold, 2);
      column.label_mean.of = of;
      columns.push_back(column);
    }
  return columns;
}

/// A row, by the plain names of things.
struct LabelledRow {
  int32_t user, item;
  double label;
};

class FitColumns : public SmallProblem {
 protected:
  /// A synthetic replica of all tables but those left out; `twice`: each item has its tags a second time.
  void import_replica(const std::vector<std::string>& without = {}, bool twice = false) {
    const auto source = root / "replica", out = root / "dataset";
    first([&] {
      std::filesystem::remove_all(source);
      std::filesystem::remove_all(out);
      synthesize({.out = source, .scale = 1e-4, .seed = 3, .threads = 1});
      for (const std::string& name : without) std::filesystem::remove(source / name);
      if (twice) repeat_tags(source / "item_categories.csv");
      import_dataset({.source = source,
                      .out = out,
                      .shards = kShards,
                      .threads = 1,
                      .assign_users = assign_users_to_shards});
    });
    open(out);
  }
  /// [27, 9] becomes [27, 9, 27, 9].
  static void repeat_tags(const std::filesystem::path& file) {
    std::ifstream in(file);
    std::string text, line;
    std::getline(in, line);
    text = line + "\n";
    while (std::getline(in, line)) {
      const size_t begin = line.find('['), end = line.find(']');
      const std::string tags = line.substr(begin + 1, end - begin - 1);
      text += fmt::format("{},\"[{}, {}]\"\n", line.substr(0, line.find(',')), tags, tags);
    }
    in.close();
    std::ofstream(file) << text;
  }
  void open(const std::filesystem::path& out) {
    config.data.path = out.string();
    config.data.validation.fraction = .2;
    dataset = Dataset::open(out);
    own = shards_of_rank(dataset.shards(), world);
    all_samples = load_samples(dataset, config, {0, dataset.shards()}, self);
  }
  std::vector<ShardSamples> own_samples() const {
    return {all_samples.begin() + own.begin, all_samples.begin() + own.end};
  }
  FittedColumns fit(std::span<const Column> columns, std::span<const ShardSamples> samples,
                    MpiCommunicator& ranks, int threads = 2) const {
    ThreadPool pool(threads);
    return fit_columns(
        columns, {.dataset = dataset, .samples = samples, .label_clip = 5, .seed = 1}, ranks, pool);
  }
  /// On this rank's shards, all ranks together.
  FittedColumns fit(std::span<const Column> columns) {
    const std::vector<ShardSamples> samples = own_samples();
    return fit(columns, samples, comm);
  }
  /// Training rows of all ranks.
  std::vector<LabelledRow> training_rows() const {
    std::vector<LabelledRow> rows;
    for (const ShardSamples& shard : all_samples)
      for (const Sample& sample : shard.train)
        rows.push_back({shard.users[sample.user], sample.item, std::min(5., double{sample.label})});
    return rows;
  }
  /// The first of this rank's rows in `training_rows`, and of its users in shard order.
  int64_t first_row() const {
    int64_t rows = 0;
    for (int64_t j = 0; j < own.begin; ++j) rows += std::ssize(all_samples[j].train);
    return rows;
  }
  std::vector<int32_t> users_in_shard_order(Range shards) const {
    std::vector<int32_t> users;
    for (int64_t j = shards.begin; j < shards.end; ++j)
      users.insert(users.end(), all_samples[j].users.begin(), all_samples[j].users.end());
    return users;
  }

  Dataset dataset;
  Range own;
  std::vector<ShardSamples> all_samples;
};

const FittedArray& array_of(const FittedColumns& fitted, const std::string& name) {
  for (const FittedArray& array : fitted.arrays)
    if (array.spec.name == name) return array;
  throw std::runtime_error("no array " + name);
}

std::vector<float> flat(const std::vector<std::vector<float>>& rows) {
  std::vector<float> values;
  for (const auto& of_shard : rows) values.insert(values.end(), of_shard.begin(), of_shard.end());
  return values;
}

double plain_quantile(std::vector<double> values, double q) {
  std::ranges::sort(values);
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const double share = place - static_cast<double>(below);
  return values[below] * (1 - share) + values[std::min(below + 1, values.size() - 1)] * share;
}

/// `values` scaled by statistics of `over`.
void plain_scale(Scaling scaling, const std::vector<double>& over, std::vector<double>& values) {
  double centre = 0, unit = 1;
  if (scaling == Scaling::kStandard) {
    unit = 0;
    for (const double x : over) centre += x / static_cast<double>(over.size());
    for (const double x : over)
      unit += (x - centre) * (x - centre) / static_cast<double>(over.size());
    unit = std::sqrt(unit);
  } else if (scaling == Scaling::kRobust) {
    centre = plain_quantile(over, .5);
    unit = plain_quantile(over, .75) - plain_quantile(over, .25);
  } else if (scaling == Scaling::kMinMax) {
    centre = *std::ranges::min_element(over);
    unit = *std::ranges::max_element(over) - centre;
  }
  for (double& x : values) x = (x - centre) / (unit > 1e-9 ? unit : 1);
}

void expect_near(float got, double want, const std::string& what) {
  EXPECT_NEAR(got, want, 2e-5 * std::max(1., std::abs(want))) << what;
}

/// Number k of a column for each item, as the tables have it.
std::vector<double> plain_item_values(const Column& column, int64_t k, const Dataset& dataset) {
  std::vector<double> values(dataset.items(), column.bag > 0 ? 0 : kNone);
  if (column.source == ColumnSource::kTags || column.source == ColumnSource::kCategory) {
    const CodeLists lists = column.source == ColumnSource::kTags
                                ? dataset.read_tags()
                                : dataset.read_categories(column.of);
    for (size_t item = 0; item < values.size(); ++item)
      for (int64_t p = lists.offsets[item]; p < lists.offsets[item + 1]; ++p)
        if (column.bag == 0 || lists.code[p] == k)
          values[item] =
              column.bag == 0 ? lists.code[p]
              : column.mean
                  ? 1. / static_cast<double>(lists.offsets[item + 1] - lists.offsets[item])
                  : 1;
    return values;
  }
  const bool length = column.source == ColumnSource::kVideoDuration;
  std::vector<std::string> read{length ? "video_duration" : column.of};
  if (!column.per.empty()) read.push_back(column.per);
  const DailyFeatures daily = dataset.read_daily(read);
  for (size_t item = 0; item < values.size(); ++item) {
    std::vector<double> cells;
    for (size_t r = 0; r < daily.item.size(); ++r)
      if (daily.item[r] == static_cast<int32_t>(item)) cells.push_back(daily.columns[0][r]);
    if (cells.empty()) continue;
    double sum = 0, count = 0, per = 0, first = kNone, last = kNone;
    for (const double cell : cells) {
      if (std::isnan(cell)) continue;
      sum += cell, count += 1, last = cell;
      if (std::isnan(first)) first = cell;
    }
    for (size_t r = 0; !column.per.empty() && r < daily.item.size(); ++r)
      if (daily.item[r] == static_cast<int32_t>(item)) per += daily.columns[1][r];
    if (column.daily == DailyReduction::kChange) {
      values[item] = per == 0 ? kNone : (last - first) / per;
      continue;
    }
    values[item] = length                                  ? cells.front()
                   : column.daily == DailyReduction::kLast ? cells.back()
                   : count == 0                            ? kNone
                   : column.daily == DailyReduction::kSum  ? sum
                                                           : sum / count;
  }
  return values;
}

/// Of each user, as the tables have it.
std::vector<double> plain_user_values(const Column& column, const Dataset& dataset) {
  if (column.source == ColumnSource::kUserTable) return dataset.read_user_columns({column.of})[0];
  const CodeLists friends = dataset.read_friends();
  std::vector<double> values;
  for (int64_t user = 0; user < dataset.users(); ++user)
    values.push_back(static_cast<double>(friends.offsets[user + 1] - friends.offsets[user]));
  return values;
}

TEST_F(FitColumns, SideColumnsAreThePlainLoops) {
  import_replica();
  const std::vector<Column> columns = all_kinds();
  const FittedColumns fitted = fit(columns);
  const std::vector<int32_t> users = users_in_shard_order(own);
  int64_t next[2] = {};
  for (const Column& column : columns) {
    if (side_of(column) == Side::kRow) continue;
    const bool by_user = side_of(column) == Side::kUser;
    const auto& [spec, got] = array_of(fitted, by_user ? "columns.user" : "columns.item");
    const int64_t count = by_user ? std::ssize(users) : dataset.items();
    ASSERT_EQ(std::ssize(got), count * spec.cols);
    for (int64_t k = 0; k < width_of(column); ++k) {
      std::vector<double> values =
          by_user ? plain_user_values(column, dataset) : plain_item_values(column, k, dataset);
      std::vector<double> known, over;
      for (const double x : values)
        if (!std::isnan(x)) known.push_back(x);
      for (double& x : values)
        if (std::isnan(x)) x = column.missing ? *column.missing : plain_quantile(known, .5);
      for (double& x : values)
        if (column.logarithm) x = std::log1p(std::max(x, 0.));
      if (column.scaled_over == ScaledOver::kEntities) over = values;
      if (column.scaled_over == ScaledOver::kTrainingRows)
        for (const LabelledRow& row : training_rows())
          over.push_back(values[by_user ? row.user : row.item]);
      plain_scale(column.scaling, over, values);
      const int64_t c = next[by_user]++;
      for (int64_t n = 0; n < count; ++n)
        expect_near(got[n * spec.cols + c], values[by_user ? users[n] : n],
                    fmt::format("{} {} of {}", column.name, k, n));
    }
  }
}

/// What a mean is taken of, from the rows with `seen`: labels, or what shrunk means of items and users leave of them.
std::vector<double> plain_numbers(const LabelMean& mean, const std::vector<LabelledRow>& rows,
                                  const std::vector<bool>& seen) {
  std::vector<double> numbers;
  for (const LabelledRow& row : rows) numbers.push_back(row.label);
  const auto leave = [&](int32_t LabelledRow::*key) {
    std::map<int32_t, LabelSum> sums;
    LabelSum all;
    for (size_t r = 0; r < rows.size(); ++r)
      for (LabelSum* sum : {&sums[rows[r].*key], &all})
        if (seen[r]) *sum = {sum->rows + 1, sum->sum + numbers[r]};
    const double prior = all.sum / static_cast<double>(all.rows);
    for (size_t r = 0; r < rows.size(); ++r)
      numbers[r] -= shrunk_mean(sums[rows[r].*key], mean.weight, prior, prior);
  };
  if (mean.of == LabelOf::kLabel) return numbers;
  leave(&LabelledRow::item);
  if (mean.of == LabelOf::kSquaredResidual || mean.key != LabelKey::kUser)
    leave(&LabelledRow::user);
  if (mean.of == LabelOf::kSquaredResidual)
    for (double& number : numbers) number *= number;
  return numbers;
}

// Each training row's mean from the rows that its rule lets it see, and each pair's from all.
TEST_F(FitColumns, LabelMeansAreThePlainLoops) {
  import_replica();
  const std::vector<Column> columns = all_kinds();
  const FittedColumns fitted = fit(columns);
  const std::vector<LabelledRow> rows = training_rows();
  const std::vector<int32_t> users = users_in_shard_order(own);
  const CodeLists tags = dataset.read_tags(),
                  categories = dataset.read_categories("first_level_category_id");
  const std::vector<float> got = flat(fitted.train_rows);
  const RowColumns predicted(columns, fitted.arrays);
  const int64_t width = predicted.width();
  ASSERT_EQ(width, 27);

  const auto groups_of = [&](LabelKey key, int32_t item) -> std::vector<int32_t> {
    if (key == LabelKey::kGlobal || key == LabelKey::kUser) return {0};
    if (key == LabelKey::kItem) return {item};
    const CodeLists& lists = key == LabelKey::kTag || key == LabelKey::kUserTag ? tags : categories;
    return {lists.code.begin() + lists.offsets[item], lists.code.begin() + lists.offsets[item + 1]};
  };
  int64_t c = -1;
  for (const Column& column : columns) {
    if (side_of(column) != Side::kRow) continue;
    ++c;
    const LabelMean& mean = column.label_mean;
    const bool by_user = mean.key == LabelKey::kUser || mean.key == LabelKey::kUserTag ||
                         mean.key == LabelKey::kUserCategory;
    // (user or -1, group) -> rows.
    std::map<std::pair<int32_t, int32_t>, std::vector<size_t>> cells;
    std::vector<size_t> everything(rows.size());
    std::iota(everything.begin(), everything.end(), 0);
    for (size_t r = 0; r < rows.size(); ++r)
      for (const int32_t group : groups_of(mean.key, rows[r].item))
        cells[{by_user ? rows[r].user : -1, group}].push_back(r);
    const auto value = [&](int32_t user, int32_t item, const std::vector<double>& numbers,
                           auto&& sees) {
      const auto total = [&](const std::vector<size_t>& some) {
        LabelSum sum;
        for (const size_t r : some)
          if (sees(r)) sum = {sum.rows + 1, sum.sum + numbers[r]};
        return sum;
      };
      // Leaving one row out of all of them is the category's affair, not the prior's.
      LabelSum prior_rows;
      for (const size_t r : everything)
        if (mean.rule != LeakageRule::kKFold || sees(r))
          prior_rows = {prior_rows.rows + 1, prior_rows.sum + numbers[r]};
      const double prior = prior_rows.sum / static_cast<double>(prior_rows.rows);
      double sum = 0, count = 0;
      for (const int32_t group : groups_of(mean.key, item)) {
        const auto cell = cells.find({by_user ? user : -1, group});
        const LabelSum labels = cell == cells.end() ? LabelSum{} : total(cell->second);
        sum += labels.rows == 0 ? mean.unseen.value_or(prior)
                                : (labels.sum + mean.weight * prior) /
                                      (static_cast<double>(labels.rows) + mean.weight);
        count += 1;
      }
      return count == 0 ? mean.unseen.value_or(prior) : sum / count;
    };
    const auto fold = [&](size_t r) { return label_fold(1, rows[r].user, rows[r].item); };
    const std::vector<double> of_all =
        plain_numbers(mean, rows, std::vector<bool>(rows.size(), true));
    std::vector<std::vector<double>> without;  // [folds]
    for (int64_t f = 0; f < kLabelFolds; ++f) {
      std::vector<bool> seen;
      for (size_t r = 0; r < rows.size(); ++r) seen.push_back(fold(r) != f);
      without.push_back(plain_numbers(mean, rows, seen));
    }
    std::vector<double> of_rows;
    for (size_t r = 0; r < rows.size(); ++r)
      of_rows.push_back(value(rows[r].user, rows[r].item, without[fold(r)], [&](size_t other) {
        return mean.rule == LeakageRule::kInSample      ? true
               : mean.rule == LeakageRule::kLeaveOneOut ? other != r
                                                        : fold(other) != fold(r);
      }));
    std::vector<double> scaled_rows = of_rows;
    plain_scale(column.scaling, of_rows, scaled_rows);
    const int64_t first = first_row();
    for (int64_t k = 0; k < std::ssize(got) / width; ++k)
      expect_near(got[k * width + c], scaled_rows[first + k],
                  fmt::format("{} row {}", column.name, k));

    for (size_t n = 0; n < users.size(); n += 5)
      for (int32_t item = 0; item < dataset.items(); item += 7) {
        std::vector<double> want{value(users[n], item, of_all, [](size_t) { return true; })};
        plain_scale(column.scaling, of_rows, want);
        std::vector<float> out(width);
        predicted.of(static_cast<int64_t>(n), item, out);
        expect_near(out[c], want[0],
                    fmt::format("{} of user {} and item {}", column.name, users[n], item));
      }
  }
}

// Whoever holds which shards, and however many threads he has.
TEST_F(FitColumns, TheSameBitsOnAnyRanksAndThreads) {
  import_replica();
  const std::vector<Column> columns = all_kinds();
  const FittedColumns alone = fit(columns, all_samples, self, 1);
  const std::vector<ShardSamples> samples = own_samples();
  const auto first_user = std::ssize(users_in_shard_order({0, own.begin}));
  for (const int threads : {1, 2}) {
    const FittedColumns got = fit(columns, samples, comm, threads);
    ASSERT_EQ(got.arrays.size(), alone.arrays.size());
    for (size_t a = 0; a < got.arrays.size(); ++a) {
      const auto& [spec, values] = got.arrays[a];
      const std::vector<float>& whole = alone.arrays[a].values;
      const bool by_user = spec.kind == ArrayKind::kUserTable;
      const auto begin = whole.begin() + (by_user ? first_user * spec.cols : 0);
      ASSERT_EQ(std::ssize(values), by_user ? std::ssize(users_in_shard_order(own)) * spec.cols
                                            : spec.rows * spec.cols);
      EXPECT_TRUE(std::equal(values.begin(), values.end(), begin)) << spec.name;
    }
    for (int64_t j = own.begin; j < own.end; ++j)
      EXPECT_EQ(got.train_rows[j - own.begin], alone.train_rows[j]) << "shard " << j;
  }
}

// The arrays alone make the columns of a training pair, where no rule hides labels from it.
TEST_F(FitColumns, InSampleRowsAreWhatTheArraysMake) {
  import_replica();
  std::vector<Column> columns;
  for (const Column& column : all_kinds())
    if (side_of(column) != Side::kRow || column.label_mean.rule == LeakageRule::kInSample)
      columns.push_back(column);
  const FittedColumns fitted = fit(columns);

  std::vector<ArraySpec> specs = column_arrays(columns, dataset);
  ASSERT_EQ(specs.size(), fitted.arrays.size());
  for (size_t a = 0; a < specs.size(); ++a) {
    const ArraySpec& spec = fitted.arrays[a].spec;
    EXPECT_EQ(spec.name, specs[a].name);
    EXPECT_EQ(spec.rows, specs[a].rows);
    EXPECT_EQ(spec.cols, specs[a].cols);
    EXPECT_EQ(spec.kind, specs[a].kind);
    EXPECT_FALSE(spec.trained);
  }

  const RowColumns from_arrays(columns, fitted.arrays);
  std::vector<float> out(from_arrays.width());
  int64_t first_user = 0;
  for (int64_t j = own.begin; j < own.end; ++j) {
    const std::vector<float>& rows = fitted.train_rows[j - own.begin];
    for (size_t r = 0; r < all_samples[j].train.size(); ++r) {
      const Sample& sample = all_samples[j].train[r];
      from_arrays.of(first_user + sample.user, sample.item, out);
      EXPECT_TRUE(std::ranges::equal(out, std::span(rows).subspan(r * out.size(), out.size())));
    }
    first_user += std::ssize(all_samples[j].users);
  }
}

// What is held out may be anything at all, and need not be there.
TEST_F(FitColumns, NoHeldOutRowIsSeen) {
  import_replica({"item_daily_features.csv"});
  std::vector<Column> columns;
  for (const Column& column : all_kinds())
    if (column.source != ColumnSource::kDailyTable) columns.push_back(column);
  std::vector<ShardSamples> samples = own_samples();
  const FittedColumns before = fit(columns, samples, comm);
  int64_t held_out = 0;
  for (ShardSamples& shard : samples)
    for (Sample& sample : shard.validation) {
      sample.label = 4.5f - sample.label;
      sample.item = (sample.item + 1) % static_cast<int32_t>(dataset.items());
      ++held_out;
    }
  comm.all_reduce(std::span(&held_out, 1), Reduction::kSum);
  ASSERT_GT(held_out, 100);
  const auto expect_equal = [&](const FittedColumns& after) {
    for (size_t a = 0; a < before.arrays.size(); ++a)
      EXPECT_EQ(after.arrays[a].values, before.arrays[a].values) << before.arrays[a].spec.name;
    EXPECT_EQ(after.train_rows, before.train_rows);
  };
  expect_equal(fit(columns, samples, comm));
  std::vector<ShardSamples> moved = samples;
  for (ShardSamples& shard : moved) shard.validation.clear();
  expect_equal(fit(columns, moved, comm));

  // The test sees: the same rows as training rows change every label mean.
  for (ShardSamples& shard : samples)
    shard.train.insert(shard.train.end(), shard.validation.begin(), shard.validation.end());
  const FittedColumns seen = fit(columns, samples, comm);
  EXPECT_NE(array_of(seen, "columns.mean22.means").values,
            array_of(before, "columns.mean22.means").values);
  EXPECT_NE(array_of(seen, "columns.row").values, array_of(before, "columns.row").values);
}

// Without a daily table a video's length is that of its first training row in the source.
TEST_F(FitColumns, LengthsOfTrainingRows) {
  import_replica({"item_daily_features.csv"});
  const Column length{.name = "length", .source = ColumnSource::kVideoDuration, .missing = -7};
  const FittedColumns fitted = fit(std::span(&length, 1));
  std::map<int32_t, std::pair<uint32_t, int32_t>> first;  // item -> source row, duration
  for (int64_t j = 0; j < kShards; ++j) {
    const Shard shard = dataset.read_shard(j);
    const Durations durations = dataset.read_durations(j);
    std::set<uint32_t> train;
    for (const Sample& sample : all_samples[j].train) train.insert(sample.row);
    for (int64_t r = 0; r < shard.size(); ++r) {
      if (!train.contains(shard.row[r])) continue;
      const std::pair row{shard.row[r], durations.video_duration[r]};
      const auto [at, is_new] = first.emplace(shard.item[r], row);
      if (!is_new) at->second = std::min(at->second, row);
    }
  }
  const std::vector<float>& got = array_of(fitted, "columns.item").values;
  int64_t missing = 0;
  for (int32_t item = 0; item < dataset.items(); ++item) {
    missing += !first.contains(item);
    EXPECT_EQ(got[item], first.contains(item) ? static_cast<float>(first[item].second) : -7.f);
  }
  EXPECT_GT(missing, 0) << "the test is worth less";
}

/// Share of the labels' variance that the column explains as it is.
double r2(std::span<const double> codes, std::span<const double> labels) {
  double mean = 0, residual = 0, total = 0;
  for (const double y : labels) mean += y / static_cast<double>(labels.size());
  for (size_t k = 0; k < labels.size(); ++k) {
    residual += std::pow(labels[k] - codes[k], 2);
    total += std::pow(labels[k] - mean, 2);
  }
  return 1 - residual / total;
}

// Labels are noise, each item has two rows: what explains them can only have seen them.
TEST_F(FitColumns, InSampleMeansLeakAndKFoldMeansDoNot) {
  import_replica();
  std::vector<ShardSamples> samples = all_samples;
  for (ShardSamples& shard : samples) shard.train.clear();
  uint64_t k = 0;
  for (int32_t item = 0; item < dataset.items(); ++item)
    for (int copy = 0; copy < 2; ++copy, ++k) {
      const auto draw = [&](uint64_t what) { return random_bits(what, Purpose::kSynthetic, k); };
      ShardSamples& shard = samples[draw(1) % kShards];
      const auto user = static_cast<int32_t>(draw(2) % shard.users.size());
      const auto label = static_cast<float>(to_uniform(draw(3)));
      shard.train.push_back({.user = user, .item = item, .label = label});
    }
  const auto explained = [&](LeakageRule rule) {
    Column column = label_mean("item", LabelKey::kItem, rule);
    column.scaling = Scaling::kNone;
    const FittedColumns fitted = fit(std::span(&column, 1), samples, self);
    std::vector<double> codes, labels;
    for (const float code : flat(fitted.train_rows)) codes.push_back(code);
    for (const ShardSamples& shard : samples)
      for (const Sample& sample : shard.train) labels.push_back(sample.label);
    return r2(codes, labels);
  };
  EXPECT_GT(explained(LeakageRule::kInSample), .3);
  EXPECT_LE(explained(LeakageRule::kKFold), 0);
  EXPECT_LE(explained(LeakageRule::kLeaveOneOut), 0);
}

// A re-watch has the label of the first time: leaving one row out tells it, leaving the pair's fold out does not.
TEST_F(FitColumns, ARewatchTellsNothingOfItself) {
  import_replica();
  std::vector<ShardSamples> samples = all_samples;
  for (ShardSamples& shard : samples) shard.train.clear();
  for (int32_t item = 0; item < dataset.items(); ++item) {
    ShardSamples& shard = samples[item % kShards];
    for (int copy = 0; copy < 2; ++copy)
      shard.train.push_back({.user = static_cast<int32_t>(item % std::ssize(shard.users)),
                             .item = item,
                             .label = static_cast<float>(item)});
  }
  Column column = label_mean("item", LabelKey::kItem, LeakageRule::kLeaveOneOut);
  column.scaling = Scaling::kNone;
  column.label_mean.unseen = -9;
  ThreadPool pool(1);
  const ColumnInputs inputs{.dataset = dataset, .samples = samples, .seed = 1};
  const FittedColumns told = fit_columns(std::span(&column, 1), inputs, self, pool);
  column.label_mean.rule = LeakageRule::kKFold;
  const FittedColumns untold = fit_columns(std::span(&column, 1), inputs, self, pool);
  for (int64_t j = 0; j < kShards; ++j)
    for (size_t r = 0; r < samples[j].train.size(); ++r) {
      EXPECT_EQ(told.train_rows[j][r], samples[j].train[r].label);
      EXPECT_EQ(untold.train_rows[j][r], -9);
    }
}

// A row counts once in a group, or leaving it out once would leave it in.
TEST_F(FitColumns, ATagThatAnItemHasTwiceIsOneGroup) {
  import_replica();
  const std::vector<Column> columns{
      label_mean("tag", LabelKey::kTag, LeakageRule::kLeaveOneOut),
      label_mean("user_tag", LabelKey::kUserTag, LeakageRule::kLeaveOneOut)};
  const FittedColumns once = fit(columns);
  const size_t tags = dataset.read_tags().code.size();
  import_replica({}, true);
  ASSERT_EQ(dataset.read_tags().code.size(), 2 * tags);
  const FittedColumns twice = fit(columns);
  EXPECT_EQ(twice.train_rows, once.train_rows);
  for (const char* name : {"columns.tag.means", "columns.user_tag.means", "columns.row"})
    EXPECT_EQ(array_of(twice, name).values, array_of(once, name).values) << name;
}

// On every rank, before anything is fitted.
TEST_F(FitColumns, WhatTheDataSetLacksIsNamed) {
  import(4);  // a mapped table: no side tables
  open(config.data.path);
  const auto message = [&](const Column& column) {
    return user_error_of([&] { fit(std::span(&column, 1)); });
  };
  const auto expect_lacking = [&](const Column& column, const std::string& file) {
    EXPECT_EQ(message(column),
              fmt::format("{}: column wanted is made of {}, which the data set was imported "
                          "without; add that file to the source and import again, or use a "
                          "configuration without that column",
                          config.data.path, file));
    EXPECT_THAT(user_error_of([&] { column_arrays(std::span(&column, 1), dataset); }),
                HasSubstr("column wanted is made of " + file));
  };
  const auto of = [](ColumnSource source) { return Column{.name = "wanted", .source = source}; };
  expect_lacking(of(ColumnSource::kUserTable), "user_features.csv");
  expect_lacking(of(ColumnSource::kDailyTable), "item_daily_features.csv");
  expect_lacking(of(ColumnSource::kTags), "item_categories.csv");
  expect_lacking(of(ColumnSource::kCategory), "kuairec_caption_category.csv");
  expect_lacking(label_mean("wanted", LabelKey::kUserTag, LeakageRule::kKFold),
                 "item_categories.csv");
  expect_lacking(label_mean("wanted", LabelKey::kCategory, LeakageRule::kKFold),
                 "kuairec_caption_category.csv");
  EXPECT_THAT(message(of(ColumnSource::kVideoDuration)),
              HasSubstr("the training rows have no play_duration and video_duration"));
}

TEST_F(FitColumns, ACodeBeyondTheBagIsRefused) {
  import_replica();
  const Column tags{.name = "few", .source = ColumnSource::kTags, .bag = 2};
  EXPECT_THAT(user_error_of([&] { fit(std::span(&tags, 1)); }),
              AllOf(HasSubstr("item_categories.csv has the code "),
                    HasSubstr("expected 0 to 1, which column few counts")));
  const Column unknown{.name = "age", .source = ColumnSource::kUserTable, .of = "age"};
  EXPECT_THAT(user_error_of([&] { fit(std::span(&unknown, 1)); }),
              HasSubstr("user_features.csv has no column age; choose another"));
}

// Any places, of values of both signs with many ties, some shards empty: as sorting them all.
TEST_F(FitColumns, OrderStatisticsAreThoseOfAllRows) {
  constexpr int64_t kWidth = 2, kColumn = 1;
  std::vector<std::vector<float>> all(kShards);
  std::vector<float> sorted;
  for (uint64_t j = 0; j < kShards; ++j)
    for (uint64_t r = 0; r < j * j; ++r) {
      const auto draw = to_uniform(random_bits(5, Purpose::kSynthetic, j, r));
      const auto value =
          static_cast<float>(r % 3 == 0 ? std::round(8 * draw - 4) / 2 : std::exp(9 * draw) - 50);
      all[j].insert(all[j].end(), {99.f, value});
      sorted.push_back(value);
    }
  std::ranges::sort(sorted);
  const std::vector<std::vector<float>> rows(all.begin() + shards_of_rank(kShards, world).begin,
                                             all.begin() + shards_of_rank(kShards, world).end);
  const RowColumn column{.rows = rows, .column = kColumn, .width = kWidth};
  std::vector<int64_t> places(sorted.size());
  std::iota(places.begin(), places.end(), 0);
  ThreadPool pool(2);
  EXPECT_EQ(order_statistics(column, places, comm, pool), sorted);

  const std::vector<double> over(sorted.begin(), sorted.end());
  for (const Scaling scaling : {Scaling::kStandard, Scaling::kRobust, Scaling::kMinMax}) {
    const Scale scale = fit_row_scale(scaling, column, kShards, comm, pool);
    std::vector<double> want{0, 1000};
    plain_scale(scaling, over, want);
    EXPECT_NEAR(scale.of(0), want[0], 1e-9);
    EXPECT_NEAR(scale.of(1000), want[1], 1e-9);
  }
  const RowColumn equal{.rows = rows, .column = 0, .width = kWidth};
  const Scale scale = fit_row_scale(Scaling::kStandard, equal, kShards, comm, pool);
  EXPECT_EQ(scale.of(99), 0);
  EXPECT_EQ(scale.unit, 1);
}

}  // namespace
}  // namespace kt
