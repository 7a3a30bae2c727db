#include "trainer/evaluation/metrics/metrics.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "io/dataset/duration_p80.h"
#include "io/dataset/label_ranks.h"
#include "io/dataset/label_sums.h"
#include "launch/base/errors.h"
#include "launch/base/math.h"
#include "launch/base/progress.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/agree.h"
#include "sharding/plan.h"
#include "trainer/evaluation/metrics/bad_score.h"
#include "trainer/evaluation/metrics/chance.h"
#include "trainer/evaluation/metrics/labels.h"
#include "trainer/evaluation/metrics/pair_order.h"
#include "trainer/evaluation/metrics/user_metrics.h"
#include "trainer/run/share.h"

namespace kt {

namespace {

using namespace metrics;

/// Users whose sums are taken together: part of the bits of every mean, whoever computes them.
constexpr int64_t kBlockUsers = 16;
constexpr size_t kScoresAtOnce = 1 << 20;  // of catalogues
constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

void check_input(const EvaluationInput& input) {
  const int64_t pairs = std::ssize(input.item);
  KT_CHECK(std::ssize(input.offsets) == std::ssize(input.users) + 1);
  KT_CHECK(input.user_rank.size() == input.users.size());
  KT_CHECK(input.user_rows.size() == input.users.size());
  KT_CHECK(input.item_number.empty() || input.item_number.size() == input.item_rows.size());
  KT_CHECK(std::ranges::is_sorted(input.item_number));
  KT_CHECK(input.labels.size() <= kMostLabels);
  KT_CHECK(input.offsets.front() == 0 && input.offsets.back() == pairs);
  KT_CHECK(std::ssize(input.label) == pairs);
  KT_CHECK(input.by_label.empty() || std::ssize(input.by_label) == pairs);
  KT_CHECK(input.label_rank.size() == input.by_label.size());
  KT_CHECK(input.label_sums.label.empty() || input.label_sums.label.size() == input.users.size());
  KT_CHECK(input.duration_p80.empty() || std::ssize(input.duration_p80) == pairs);
  KT_CHECK(input.video_duration.empty() || std::ssize(input.video_duration) == pairs);
  KT_CHECK(std::all_of(input.k.begin(), input.k.end(), [](int64_t k) { return k >= 1; }));
  for (size_t u = 0; u < input.users.size(); ++u)
    KT_CHECK(input.offsets[u] < input.offsets[u + 1], "user {} has no pairs", input.users[u]);
  if (input.seen_offsets.empty()) return;
  KT_CHECK(std::ssize(input.seen_offsets) == std::ssize(input.users) + 1);
  KT_CHECK(input.seen_offsets.front() == 0 && input.seen_offsets.back() == std::ssize(input.seen));
}

std::vector<double> self_information(std::span<const int64_t> item_rows) {
  int64_t total = std::ssize(item_rows);
  for (int64_t rows : item_rows) total += rows;
  std::vector<double> bits(item_rows.size());
  for (size_t i = 0; i < bits.size(); ++i) {
    bits[i] = math::log2(static_cast<double>(total) / static_cast<double>(item_rows[i] + 1));
  }
  return bits;
}

/// Over the users that count.
struct Sums {
  std::vector<double> value, chance;  ///< [Layout::size()]
  std::vector<int64_t> users;         ///< of each value
};

/// Writes names into the result.
class Report {
 public:
  explicit Report(EvaluationResult& result) : result_(result) {}

  void add(const std::string& name, double value, double chance) {
    result_.metrics[name] = value;
    result_.chance[name] = chance;
  }
  /// The mean over the users that count.
  void add_mean(const std::string& name, const Sums& sums, size_t at) {
    const auto users = static_cast<double>(sums.users[at]);
    if (sums.users[at] > 0) add(name, sums.value[at] / users, sums.chance[at] / users);
  }
  void skipped(const std::string& label, int64_t counted) {
    result_.skipped_users[label] = result_.users - counted;
  }
  void note(std::string text) { result_.notes.push_back(std::move(text)); }

 private:
  EvaluationResult& result_;
};

/// A column of the users' rows that a metric is the mean of.
struct Mean {
  enum class Over { kUsers, kPairs };

  std::string name;
  size_t at;
  Over over = Over::kUsers;
};

/// Errors need scores in the labels' unit, and so do the rounded ones of feature_mlp.
std::vector<Mean> means_of_ratios(const Layout& layout) {
  using enum Mean::Over;
  return {{"mse", layout.errors(), kPairs},
          {"mae", layout.errors() + 1, kPairs},
          {"mse_clipped", layout.errors() + 2, kPairs},
          {"mae_clipped", layout.errors() + 3, kPairs},
          {"mae_macro", layout.mae()},
          {"feature_mlp.ndcg@10_on_ids_rounded", layout.on_ids_rounded()}};
}

std::vector<Mean> means_of_orders(const Context& context) {
  const Layout& layout = context.layout;
  std::vector<Mean> means = {{"xauc_user", layout.xauc()},
                             {"ncf.hit_ratio@50", layout.ncf_hit_ratio()},
                             {"ncf.ndcg@50_ideal_of_retrieved", layout.ncf_ndcg()},
                             {"feature_mlp.ndcg@10_on_ids", layout.on_ids()},
                             {"two_tower.recall_repeated_rows", layout.recall_repeated()},
                             {"cosine.jaccard@50", layout.jaccard()},
                             {"als.ndcg_any_hit", layout.any_hit()}};
  for (size_t t = 0; t < layout.thresholds; ++t)
    means.push_back({"gauc@" + context.threshold_names[t], layout.gauc(t), Mean::Over::kPairs});
  for (size_t label = 0; label < layout.labels; ++label) {
    const std::string& name = context.labels[label].name;
    means.push_back({fmt::format("mrr/{}", name), layout.mrr(label)});
    for (size_t j = 0; j < context.k.size(); ++j)
      for (size_t metric = 0; metric < kListMetrics; ++metric)
        means.push_back({fmt::format("{}@{}/{}", kListMetricNames[metric], context.k[j], name),
                         layout.list(label, j, static_cast<ListMetric>(metric))});
  }
  for (size_t j = 0; j < context.k.size(); ++j) {
    means.push_back({fmt::format("ndcg@{}/graded5", context.k[j]), layout.graded(j)});
    means.push_back({fmt::format("ndcg_exp@{}/graded5", context.k[j]), layout.graded_exp(j)});
    means.push_back({fmt::format("novelty@{}", context.k[j]), layout.novelty(j)});
  }
  return means;
}

/// Shapes: at four columns of errors of a row of sums.
Errors errors_at(const std::vector<double>& sums, size_t at) {
  return {sums[at], sums[at + 1], sums[at + 2], sums[at + 3]};
}

void report_errors(const Layout& layout, const Sums& sums, double pairs, Report& report) {
  const Errors model = errors_at(sums.value, layout.errors());
  const Errors constant = errors_at(sums.chance, layout.errors());
  report.add("mse", model.squared / pairs, constant.squared / pairs);
  report.add("rmse", std::sqrt(model.squared / pairs), std::sqrt(constant.squared / pairs));
  report.add("mae", model.absolute / pairs, constant.absolute / pairs);
  report.add("mse_clipped", model.squared_cut / pairs, constant.squared_cut / pairs);
  report.add("rmse_clipped", std::sqrt(model.squared_cut / pairs),
             std::sqrt(constant.squared_cut / pairs));
  report.add("mae_clipped", model.absolute_cut / pairs, constant.absolute_cut / pairs);
  report.add_mean("ncf.mae_per_user", sums, layout.mae());
  constexpr double kUnit = kRatioCut / 2;  // of [-1, 1]
  report.add("two_tower.mae_scaled", model.absolute_cut / pairs / kUnit,
             constant.absolute_cut / pairs / kUnit);
  report.add("two_tower.rmse_scaled", std::sqrt(model.squared_cut / pairs) / kUnit,
             std::sqrt(constant.squared_cut / pairs) / kUnit);
  const double squared_deviation = sums.chance[layout.squared_deviation()];
  if (squared_deviation > 0) {
    report.add("r2", 1 - model.squared / squared_deviation,
               1 - constant.squared / squared_deviation);
  } else {
    report.note("r2 is left out: all labels are equal");
  }
}

void report_order(const Context& context, const PairOrder& order, const Sums& sums,
                  Report& report) {
  for (size_t t = 0; t < context.thresholds.size(); ++t) {
    const std::string& name = context.threshold_names[t];
    if (order.classes[t].both())
      report.add("auc@" + name, order.classes[t].auc(), .5);
    else
      report.note(fmt::format("auc@{0} and gauc@{0} are left out: no labels on both sides of {1}",
                              name, context.thresholds[t]));
    const size_t gauc = context.layout.gauc(t);  // chance: rows
    if (sums.users[gauc] > 0) report.add("gauc@" + name, sums.value[gauc] / sums.chance[gauc], .5);
    report.skipped("gauc@" + name, sums.users[gauc]);
  }
  if (order.pairs > 0) {
    report.add("xauc", order.xauc(), .5);
    report.add("xauc_ties", order.xauc_ties(), .5);
  } else {
    report.note("xauc is left out: all labels are equal");
  }
}

void report_skipped(const Context& context, const Sums& sums, Report& report) {
  const Layout& layout = context.layout;
  report.skipped("lists@50", sums.users[layout.ncf_ndcg()]);
  if (!context.number.empty()) report.skipped("lists@10", sums.users[layout.on_ids()]);
  report.skipped("xauc_user", sums.users[layout.xauc()]);
  report.skipped("two_tower.recall_repeated_rows", sums.users[layout.recall_repeated()]);
  for (size_t label = 0; label < layout.labels; ++label) {
    const std::string& name = context.labels[label].name;
    report.skipped(name, sums.users[layout.mrr(label)]);
    for (size_t j = 0; j < context.k.size(); ++j)
      report.skipped(fmt::format("{}@{}", name, context.k[j]),
                     sums.users[layout.list(label, j, kPrecision)]);
  }
  for (size_t j = 0; j < context.k.size(); ++j) {
    report.skipped(fmt::format("graded5@{}", context.k[j]), sums.users[layout.graded(j)]);
    report.skipped(fmt::format("lists@{}", context.k[j]), sums.users[layout.novelty(j)]);
  }
}

/// The errors of the pairs alone that are of an untrained user or item.
void add_untrained_errors(const Layout& layout, const Sums& sums, Untrained& untrained) {
  const auto pairs = static_cast<double>(untrained.pairs);
  const auto add = [&](const Errors& errors, std::map<std::string, double>& to) {
    to = {{"mse", errors.squared / pairs},
          {"mae", errors.absolute / pairs},
          {"mse_clipped", errors.squared_cut / pairs},
          {"mae_clipped", errors.absolute_cut / pairs}};
  };
  add(errors_at(sums.value, layout.untrained()), untrained.metrics);
  add(errors_at(sums.chance, layout.untrained()), untrained.chance);
}

}  // namespace

bool is_error(const std::string& metric) {
  return metric.find("mae") != std::string::npos || metric.find("mse") != std::string::npos;
}

struct TestMetrics::State {
  EvaluationInput input;
  std::vector<int64_t> ks;     // ascending
  std::vector<int32_t> own;    // this rank's users, by place in the table
  std::vector<int64_t> begin;  // [own + 1] their pairs among this rank's
  std::vector<size_t> row;     // [U] of a user among the rows of all ranks
  Context context;
  std::vector<Mean> means;
  std::vector<UserFacts> facts;        // [own]
  LabelRanks label_ranks;              // where the input has none
  std::vector<uint8_t> duration_p80;   // likewise
  HugeArray<uint16_t> facts_relevant;  // [own pairs] what facts borrow
  std::vector<double> chance;          // [Layout::size()] sums over users
  Untrained untrained;                 // without its errors
  std::vector<double> coverage;        // [ks] chance
  std::optional<GlobalOrder> order;
  Stopwatch order_preparation;

  User user(size_t k) const {
    const auto u = static_cast<size_t>(own[k]);
    const auto first = static_cast<size_t>(input.offsets[u]);
    const auto n = static_cast<size_t>(input.offsets[u + 1]) - first;
    return {.item = input.item.subspan(first, n),
            .label = input.label.subspan(first, n),
            .by_label = input.by_label.subspan(first, n),
            .label_rank = input.label_rank.subspan(first, n),
            .duration_p80 = input.duration_p80.empty() ? input.duration_p80
                                                       : input.duration_p80.subspan(first, n),
            .gain = input.label_sums.gain[u],
            .gain_exp = input.label_sums.gain_exp[u],
            .trained = input.user_rows[u] > 0};
  }
  std::span<const int32_t> seen(size_t u) const {
    const auto first = static_cast<size_t>(input.seen_offsets[u]);
    return input.seen.subspan(first, static_cast<size_t>(input.seen_offsets[u + 1]) - first);
  }
  /// How many candidates the lists of a user are of, and which of them are in a range of items; several rows of one
  /// are side by side.
  int64_t candidates(size_t u) const;
  std::span<const int32_t> candidates(size_t u, Range items, std::vector<int32_t>& buffer) const;
  void deal_users(World world);
  void check_pairs(const User& of_user) const;
  std::vector<double> expected_coverage(Communicator& comm, ThreadPool& pool) const;
  void set_context();
  void count_untrained(Communicator& comm);
  /// Columns of the users' rows, summed; how many are there, too. Shapes: rows [users of all ranks, Layout::size()].
  std::vector<double> sum_rows(std::span<const double> rows, std::vector<int64_t>& counts) const;
  /// Of all users, and how many items are in somebody's first K; `order` takes the scores in passing. Shapes: result [users of all ranks,
  /// Layout::size()], by rank; covered [ks]. Collective: all ranks.
  std::vector<double> rows_of_users(std::span<const float> score, const CatalogueScorer& catalogue,
                                    std::vector<int64_t>& covered, Communicator& comm,
                                    ThreadPool& pool);
  /// Refuses scores of this rank's users that are not finite. Shapes: place_of(i) = user * items + item of score i,
  /// ascending; the user by its place in the table. Collective: all ranks.
  template <class PlaceOf>
  void check_scores(std::span<const float> score, Communicator& comm, PlaceOf&& place_of) const;
  UserValues values_of_users(std::span<const double> rows) const;
};

int64_t TestMetrics::State::candidates(size_t u) const {
  return context.catalogue ? std::ssize(input.item_rows) - std::ssize(seen(u))
                           : input.offsets[u + 1] - input.offsets[u];
}

std::span<const int32_t> TestMetrics::State::candidates(size_t u, Range items,
                                                        std::vector<int32_t>& buffer) const {
  const auto in_range = [&](std::span<const int32_t> all) {
    const auto first = std::lower_bound(all.begin(), all.end(), items.begin);
    return std::span(first, std::lower_bound(first, all.end(), items.end));
  };
  if (!context.catalogue)
    return in_range(
        input.item.subspan(static_cast<size_t>(input.offsets[u]),
                           static_cast<size_t>(input.offsets[u + 1] - input.offsets[u])));
  const std::span<const int32_t> known = in_range(seen(u));
  buffer.clear();
  auto next = known.begin();
  for (auto item = static_cast<int32_t>(items.begin); item < items.end; ++item) {
    if (next != known.end() && *next == item)
      ++next;
    else
      buffer.push_back(item);
  }
  return buffer;
}

void TestMetrics::State::deal_users(World world) {
  std::vector<size_t> next(static_cast<size_t>(world.size) + 1, 0);
  for (const int32_t rank : input.user_rank) ++next[static_cast<size_t>(rank) + 1];
  std::partial_sum(next.begin(), next.end(), next.begin());
  begin.push_back(0);
  for (size_t u = 0; u < input.users.size(); ++u) {
    row.push_back(next[static_cast<size_t>(input.user_rank[u])]++);
    if (input.user_rank[u] != world.rank) continue;
    own.push_back(static_cast<int32_t>(u));
    begin.push_back(begin.back() + input.offsets[u + 1] - input.offsets[u]);
  }
}

void TestMetrics::State::check_pairs(const User& of_user) const {
  // As wide as what is compared, so that the loops are vectorized.
  int64_t not_finite = 0;
  for (const double label : of_user.label)
    not_finite += !(std::abs(label) <= std::numeric_limits<double>::max());
  int32_t descending = 0;
  const std::span<const int32_t> item = of_user.item;
  for (size_t i = 1; i < item.size(); ++i) descending += item[i - 1] > item[i];
  KT_CHECK(not_finite == 0);
  KT_CHECK(descending == 0);
  KT_CHECK(of_user.item.front() >= 0 && of_user.item.back() < std::ssize(input.item_rows));
}

/// Expected share of the catalogue in random lists: item i is missed by a user of n candidates, i
/// once among them, with probability 1 - K / n, and the users' orders are independent. A second row
/// of the same item in the same user is missed too with (n - K - 1) / (n - 1), and so on.
std::vector<double> TestMetrics::State::expected_coverage(Communicator& comm,
                                                          ThreadPool& pool) const {
  // A rank takes a range of the items, a task a range of that; each product is over the users in order.
  const World world = comm.world();
  const int64_t items = std::ssize(input.item_rows);
  const auto width = ks.size();
  const int64_t first = items * world.rank / world.size;
  const int64_t last = items * (world.rank + 1) / world.size;
  using Lanes [[gnu::vector_size(32)]] = double;
  constexpr size_t kLanes = sizeof(Lanes) / sizeof(double);
  const size_t vectors = (width + kLanes - 1) / kLanes;  // of an item
  std::vector<Lanes> missed(static_cast<size_t>(last - first) * vectors, Lanes{1, 1, 1, 1});
  const int64_t tasks = std::min<int64_t>(pool.threads(), last - first);
  pool.parallel_for(tasks, [&](int64_t task, int) {
    const Range range{first + (last - first) * task / tasks,
                      first + (last - first) * (task + 1) / tasks};
    std::vector<Lanes> once(vectors);
    std::vector<int32_t> buffer;
    for (size_t u = 0; u < input.users.size(); ++u) {
      const int64_t n = candidates(u);
      const auto left = [&](int64_t of, int64_t repeat) {
        return static_cast<double>(std::max<int64_t>(n - of - repeat, 0)) /
               static_cast<double>(n - repeat);
      };
      size_t lists = 0;  // shorter than the candidates
      std::ranges::fill(once, Lanes{1, 1, 1, 1});
      for (; lists < width && ks[lists] < n; ++lists)
        once[lists / kLanes][lists % kLanes] = left(ks[lists], 0);
      int64_t repeat = 0;
      int32_t previous = -1;
      for (const int32_t item : candidates(u, range, buffer)) {
        Lanes* const of_item = missed.data() + static_cast<size_t>(item - first) * vectors;
        if (item != previous) {
          repeat = 0;
          for (size_t v = 0; v < vectors; ++v) of_item[v] *= once[v];
        } else {
          ++repeat;
          for (size_t j = 0; j < lists; ++j) of_item[j / kLanes][j % kLanes] *= left(ks[j], repeat);
        }
        previous = item;
      }
    }
  });
  const std::vector<double> all = gather_to_all<double>(
      {reinterpret_cast<const double*>(missed.data()), missed.size() * kLanes}, comm);
  std::vector<double> sums(width, 0);
  for (size_t i = 0; i < all.size(); i += vectors * kLanes)
    for (size_t j = 0; j < width; ++j) sums[j] += 1 - all[i + j];
  for (double& sum : sums) sum /= static_cast<double>(items);
  return sums;
}

void TestMetrics::State::set_context() {
  const bool durations = !input.video_duration.empty();
  std::vector<BinaryLabel> labels;
  for (const BinaryLabel& label : input.labels)
    if (durations || label.kind != BinaryLabel::Kind::kDurationP80) labels.push_back(label);
  std::vector<BinaryLabel> thresholds;
  for (const BinaryLabel& label : labels)
    if (label.kind == BinaryLabel::Kind::kThreshold) thresholds.push_back(label);
  std::ranges::stable_sort(thresholds, {}, &BinaryLabel::threshold);
  context.layout = {.labels = labels.size(), .thresholds = thresholds.size(), .ks = ks.size()};
  for (const BinaryLabel& label : thresholds) {
    context.thresholds.push_back(label.threshold);
    context.threshold_names.push_back(label.name);
  }
  context.labels = std::move(labels);
  const auto top50 = std::ranges::find(context.labels, kNcfTop, &BinaryLabel::top);
  context.top50 = static_cast<size_t>(top50 - context.labels.begin());
  if (top50 == context.labels.end())
    context.labels.push_back({.name = {}, .kind = BinaryLabel::Kind::kTop, .top = kNcfTop});
  context.k = ks;

  // Lists are shorter than the candidates; longer ones are left out.
  context.catalogue = !input.seen_offsets.empty();
  int64_t longest = kNcfTop;
  for (size_t u = 0; u < input.users.size(); ++u) longest = std::max(longest, candidates(u));
  if (ks.empty() || ks.back() < longest)
    longest = ks.empty() ? kNcfTop : std::max<int64_t>(kNcfTop, ks.back());
  context.discount = discount_sums(longest);
  context.information = self_information(input.item_rows);
  context.number.assign(input.item_number.begin(), input.item_number.end());
  if (std::ranges::count(input.item_rows, 0) > 0)
    for (const int64_t rows : input.item_rows) context.untrained.push_back(rows == 0);
  context.train_mean = input.train_label_mean;
  const std::vector<double>& sums = input.label_sums.label;
  context.test_mean =
      std::accumulate(sums.begin(), sums.end(), 0.) / static_cast<double>(input.label.size());

  if (input.score_unit == ScoreUnit::kLabel) means = means_of_ratios(context.layout);
  const std::vector<Mean> orders = means_of_orders(context);
  means.insert(means.end(), orders.begin(), orders.end());
}

/// Collective: all ranks.
void TestMetrics::State::count_untrained(Communicator& comm) {
  untrained.users = std::ranges::count(input.user_rows, 0);
  std::vector<uint8_t> met(context.untrained.size());
  for (size_t k = 0; k < own.size() && !met.empty(); ++k)
    for (const int32_t item : user(k).item)
      met[static_cast<size_t>(item)] |= context.untrained[static_cast<size_t>(item)];
  comm.all_reduce(std::span<uint8_t>(met), Reduction::kMax);
  untrained.items = std::ranges::count(met, 1);
  for (const UserFacts& of_user : facts) untrained.pairs += std::ssize(of_user.untrained);
  comm.all_reduce(std::span(&untrained.pairs, 1), Reduction::kSum);
}

template <class PlaceOf>
void TestMetrics::State::check_scores(std::span<const float> score, Communicator& comm,
                                      PlaceOf&& place_of) const {
  const auto bad = first_bad_score(score, comm, place_of);
  if (!bad) return;
  const int64_t items = std::ssize(input.item_rows);
  throw AgreedError(fmt::format(
      "evaluation: the score of user index {}, item index {} is {}, expected a finite number; the "
      "weights have diverged: train again with a smaller train.optimizer.lr or with "
      "train.clip_norm",
      input.users[static_cast<size_t>(bad->place / items)], bad->place % items, bad->score));
}

std::vector<double> TestMetrics::State::rows_of_users(std::span<const float> score,
                                                      const CatalogueScorer& catalogue,
                                                      std::vector<int64_t>& covered,
                                                      Communicator& comm, ThreadPool& pool) {
  const size_t width = context.layout.size(), items = input.item_rows.size();
  std::vector<float> bad(own.size(), 0);  // the first score of the catalogue that is not finite
  std::vector<int64_t> bad_item(own.size());
  std::vector<double> rows(own.size() * width, kAbsent);
  // Of the catalogue, scores are most of the work, and who predicts them counts them.
  const ProgressBar bar(
      "evaluation: metrics",
      context.catalogue ? std::ssize(own) * static_cast<int64_t>(items) : begin.back(), "pairs");
  std::vector<Worker> workers(static_cast<size_t>(pool.threads()));
  for (Worker& worker : workers) worker.listed.assign(ks.size(), std::vector<uint8_t>(items));
  std::vector<int32_t> users;
  for (const int32_t place : own) users.push_back(input.users[place]);
  std::vector<float> scores;  // of the catalogue
  const auto work = [&](size_t first, int64_t task, int thread) {
    const size_t k = first + static_cast<size_t>(task);
    const User of_user = user(k);
    Worker& worker = workers[static_cast<size_t>(thread)];
    const std::span<double> values = std::span(rows).subspan(k * width, width);
    user_values(context, of_user, facts[k],
                score.subspan(static_cast<size_t>(begin[k]), of_user.label.size()), worker, values);
    order->take(k, worker.order.keys);
    if (!context.catalogue) return advance_progress(std::ssize(of_user.label));
    const auto all = std::span<const float>(scores).subspan((k - first) * items, items);
    const auto wrong = std::ranges::find_if_not(all, [](float one) { return std::isfinite(one); });
    if (wrong != all.end()) {
      bad[k] = *wrong;
      bad_item[k] = wrong - all.begin();
      return;
    }
    catalogue_values(context, of_user, facts[k], seen(static_cast<size_t>(own[k])), all, worker,
                     values);
  };
  const size_t most = context.catalogue ? std::max<size_t>(1, kScoresAtOnce / items) : own.size();
  for (size_t first = 0; first < own.size(); first += most) {
    const size_t count = std::min(most, own.size() - first);
    if (context.catalogue) {
      scores.resize(count * items);
      catalogue(std::span(users).subspan(first, count), scores);
    }
    pool.parallel_for(static_cast<int64_t>(count),
                      [&](int64_t task, int thread) { work(first, task, thread); });
  }
  if (context.catalogue)
    check_scores(bad, comm, [&](int64_t k) {
      const auto at = static_cast<size_t>(k);
      return own[at] * static_cast<int64_t>(items) + bad_item[at];
    });
  std::vector<uint8_t> listed(ks.size() * items, 0);
  for (const Worker& worker : workers)
    for (size_t i = 0; i < listed.size(); ++i) listed[i] |= worker.listed[i / items][i % items];
  comm.all_reduce(std::span<uint8_t>(listed), Reduction::kMax);
  for (size_t j = 0; j < ks.size(); ++j) {
    const auto first = listed.begin() + static_cast<std::ptrdiff_t>(j * items);
    covered.push_back(std::count(first, first + static_cast<std::ptrdiff_t>(items), 1));
  }
  return gather_to_all<double>(rows, comm);
}

UserValues TestMetrics::State::values_of_users(std::span<const double> rows) const {
  UserValues users;
  for (const Mean& mean : means) {
    users.names.push_back(mean.name);
    users.over_pairs.push_back(mean.over == Mean::Over::kPairs);
  }
  for (size_t u = 0; u < row.size(); ++u) {
    const std::span<const double> of_user = rows.subspan(row[u] * context.layout.size());
    users.pairs.push_back(static_cast<double>(input.offsets[u + 1] - input.offsets[u]));
    for (size_t m = 0; m < means.size(); ++m)
      users.values.push_back(of_user[means[m].at] / users.weight(u, m));
  }
  return users;
}

std::vector<double> TestMetrics::State::sum_rows(std::span<const double> rows,
                                                 std::vector<int64_t>& counts) const {
  const size_t width = context.layout.size();
  std::vector<double> total(width, 0), block(width);
  counts.assign(width, 0);
  for (size_t u = 0; u < row.size();) {
    std::fill(block.begin(), block.end(), 0);
    const size_t end = std::min(u + kBlockUsers, row.size());
    for (; u < end; ++u) {
      const double* const of_user = rows.data() + row[u] * width;
      for (size_t c = 0; c < width; ++c) {
        if (std::isnan(of_user[c])) continue;
        block[c] += of_user[c];
        ++counts[c];
      }
    }
    for (size_t c = 0; c < width; ++c) total[c] += block[c];
  }
  return total;
}

TestMetrics::TestMetrics(const EvaluationInput& input, Communicator& comm, ThreadPool& pool)
    : state_(std::make_unique<State>()) {
  check_input(input);
  State& s = *state_;
  s.input = input;
  s.ks.assign(input.k.begin(), input.k.end());
  std::sort(s.ks.begin(), s.ks.end());
  s.ks.erase(std::unique(s.ks.begin(), s.ks.end()), s.ks.end());
  if (input.item.empty()) return;
  if (input.by_label.empty()) {
    s.label_ranks = rank_labels(input.offsets, input.label, pool);
    s.input.by_label = s.label_ranks.by_label;
    s.input.label_rank = s.label_ranks.rank;
  }
  if (input.label_sums.label.empty())
    s.input.label_sums = sum_labels(input.offsets, input.label, pool);
  if (input.duration_p80.empty() && !input.video_duration.empty()) {
    s.duration_p80 = mark_duration_p80(input.offsets, input.video_duration, s.input.by_label,
                                       s.input.label_rank, pool);
    s.input.duration_p80 = s.duration_p80;
  }
  s.deal_users(comm.world());
  s.set_context();
  const size_t width = s.context.layout.size();
  std::vector<double> rows(s.own.size() * width, kAbsent);
  std::vector<Worker> workers(static_cast<size_t>(pool.threads()));
  s.facts.resize(s.own.size());
  const auto own_pairs = static_cast<size_t>(s.begin.back());
  s.facts_relevant = HugeArray<uint16_t>(own_pairs);
  pool.parallel_for(std::ssize(s.own), [&](int64_t task, int thread) {
    const auto k = static_cast<size_t>(task);
    const User user = s.user(k);
    s.check_pairs(user);
    const auto first = static_cast<size_t>(s.begin[k]), n = user.label.size();
    Worker& worker = workers[static_cast<size_t>(thread)];
    const std::span<double> chance = std::span(rows).subspan(k * width, width);
    s.facts[k] =
        user_facts(s.context, user, std::span(s.facts_relevant).subspan(first, n), worker, chance);
    if (s.context.catalogue)
      catalogue_facts(s.context, user, s.facts[k], s.seen(static_cast<size_t>(s.own[k])), worker,
                      chance);
  });
  std::vector<int64_t> counts;
  s.chance = s.sum_rows(gather_to_all<double>(rows, comm), counts);
  s.count_untrained(comm);
  s.coverage = s.expected_coverage(comm, pool);
  s.order_preparation.time([&] {
    std::vector<OrderedLabels> labels;
    for (size_t k = 0; k < s.own.size(); ++k) {
      const LabelOrder& order = s.facts[k].order;
      labels.push_back({.key = s.user(k).label_rank, .below = order.below});
    }
    s.order.emplace(labels, s.context.thresholds.size(), comm, pool);
  });
}

double TestMetrics::order_preparation_s() const { return state_->order_preparation.seconds; }

TestMetrics::~TestMetrics() = default;
TestMetrics::TestMetrics(TestMetrics&&) noexcept = default;
TestMetrics& TestMetrics::operator=(TestMetrics&&) noexcept = default;

EvaluationResult TestMetrics::evaluate(std::span<const float> score, Communicator& comm,
                                       ThreadPool& pool, const CatalogueScorer& catalogue) const {
  State& s = *state_;
  const EvaluationInput& input = s.input;
  EvaluationResult result;
  result.users = std::ssize(input.users);
  result.pairs = std::ssize(input.item);
  result.k = s.ks;
  result.catalogue = !input.seen_offsets.empty();
  Report report(result);
  if (result.pairs == 0) {
    report.note("there is nothing to evaluate: the test table is empty");
    return result;
  }
  if (input.video_duration.empty() &&
      std::ranges::count(input.labels, BinaryLabel::Kind::kDurationP80, &BinaryLabel::kind) > 0)
    report.note("duration-p80 is left out: the test table has no video_duration");
  if (input.item_number.empty())
    report.note("feature_mlp.ndcg@10_on_ids is left out: not all ids of items are numbers");
  const bool ratios = input.score_unit == ScoreUnit::kLabel;
  if (!ratios)
    report.note("mse, mae, r2 and their kin are left out: this system's scores are an order alone");

  KT_CHECK(std::ssize(score) == s.begin.back());
  s.check_scores(score, comm, [&](int64_t i) {
    const auto k = std::upper_bound(s.begin.begin(), s.begin.end(), i) - s.begin.begin() - 1;
    const auto at = static_cast<size_t>(k), u = static_cast<size_t>(s.own[at]);
    const int32_t item = input.item[static_cast<size_t>(input.offsets[u] + i - s.begin[at])];
    return s.own[at] * std::ssize(input.item_rows) + item;
  });

  const Layout& layout = s.context.layout;
  Stopwatch users_time, order_time;
  Sums sums{.value = {}, .chance = s.chance, .users = {}};
  std::vector<int64_t> covered;  // [ks] items
  users_time.time([&] {
    const std::vector<double> rows = s.rows_of_users(score, catalogue, covered, comm, pool);
    sums.value = s.sum_rows(rows, sums.users);
    result.user_values = s.values_of_users(rows);
  });
  sums.chance[layout.ncf_ndcg()] = sums.value[layout.ncf_ndcg_chance()];
  sums.chance[layout.on_ids_rounded()] = sums.value[layout.on_ids_rounded_chance()];
  PairOrder order;
  order_time.time([&] { order = s.order->count(comm, pool); });
  result.users_seconds = users_time.seconds;
  result.order_seconds = order_time.seconds;

  if (ratios) report_errors(layout, sums, static_cast<double>(result.pairs), report);
  report_order(s.context, order, sums, report);
  for (const Mean& mean : s.means)
    if (mean.over == Mean::Over::kUsers) report.add_mean(mean.name, sums, mean.at);
  report_skipped(s.context, sums, report);
  for (size_t j = 0; j < s.ks.size(); ++j)
    if (sums.users[layout.novelty(j)] > 0)
      report.add(fmt::format("coverage@{}", s.ks[j]),
                 static_cast<double>(covered[j]) / static_cast<double>(input.item_rows.size()),
                 s.coverage[j]);
  for (size_t label = 0; label < layout.labels; ++label)
    result.labels.push_back(s.context.labels[label].name);
  result.untrained = s.untrained;
  if (ratios && s.untrained.pairs > 0) add_untrained_errors(layout, sums, result.untrained);
  return result;
}

}  // namespace kt
