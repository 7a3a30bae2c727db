#include "trainer/evaluation/metrics/metrics.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>

#include "launch/base/errors.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/agree.h"
#include "trainer/evaluation/metrics/chance.h"
#include "trainer/evaluation/metrics/labels.h"
#include "trainer/evaluation/metrics/pair_order.h"
#include "trainer/evaluation/metrics/user_metrics.h"
#include "trainer/run/share.h"

namespace kt {

namespace {

using namespace metrics;  // the per-user half of this file

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Users whose sums are taken together: part of the bits of every mean, whoever computes them.
constexpr int64_t kBlockUsers = 16;
constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

void check_input(const EvaluationInput& input) {
  const int64_t pairs = std::ssize(input.item);
  KT_CHECK(std::ssize(input.offsets) == std::ssize(input.users) + 1);
  KT_CHECK(input.user_rank.size() == input.users.size());
  KT_CHECK(input.offsets.front() == 0 && input.offsets.back() == pairs);
  KT_CHECK(std::ssize(input.label) == pairs);
  KT_CHECK(input.video_duration.empty() || std::ssize(input.video_duration) == pairs);
  KT_CHECK(std::all_of(input.k.begin(), input.k.end(), [](int64_t k) { return k >= 1; }));
  for (size_t u = 0; u < input.users.size(); ++u)
    KT_CHECK(input.offsets[u] < input.offsets[u + 1], "user {} has no pairs", input.users[u]);
}

/// The first score of all ranks that is not finite.
struct BadScore {
  int64_t place;
  float score;
};

/// Shapes: place_of(i) the place of score i among all, ascending. Collective: all ranks.
template <class PlaceOf>
std::optional<BadScore> first_bad_score(std::span<const float> score, Communicator& comm,
                                        PlaceOf&& place_of) {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  const auto bad =
      std::find_if(score.begin(), score.end(), [](float value) { return !std::isfinite(value); });
  const int64_t own = bad == score.end() ? kNone : place_of(bad - score.begin());
  int64_t first = own;
  comm.all_reduce(std::span(&first, 1), Reduction::kMin);
  if (first == kNone) return std::nullopt;
  // As bits, since no reduction keeps what is not a number.
  int32_t bits = own == first ? std::bit_cast<int32_t>(*bad) : 0;
  comm.all_reduce(std::span(&bits, 1), Reduction::kSum);
  return BadScore{first, std::bit_cast<float>(bits)};
}

std::vector<double> self_information(std::span<const int64_t> item_rows) {
  int64_t total = std::ssize(item_rows);
  for (int64_t rows : item_rows) total += rows;
  std::vector<double> bits(item_rows.size());
  for (size_t i = 0; i < bits.size(); ++i) {
    bits[i] = std::log2(static_cast<double>(total) / static_cast<double>(item_rows[i] + 1));
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

void report_errors(const Layout& layout, const Sums& sums, double pairs, Report& report) {
  const auto of = [&](const std::vector<double>& row) {
    const auto at = row.begin() + static_cast<std::ptrdiff_t>(layout.errors());
    return Errors{at[0], at[1], at[2], at[3]};
  };
  const Errors model = of(sums.value), constant = of(sums.chance);
  report.add("mse", model.squared / pairs, constant.squared / pairs);
  report.add("rmse", std::sqrt(model.squared / pairs), std::sqrt(constant.squared / pairs));
  report.add("mae", model.absolute / pairs, constant.absolute / pairs);
  report.add("mse_clipped", model.squared_cut / pairs, constant.squared_cut / pairs);
  report.add("rmse_clipped", std::sqrt(model.squared_cut / pairs),
             std::sqrt(constant.squared_cut / pairs));
  report.add("mae_clipped", model.absolute_cut / pairs, constant.absolute_cut / pairs);
  const double squared_deviation = sums.chance[layout.squared_deviation()];
  if (squared_deviation > 0) {
    report.add("r2", 1 - model.squared / squared_deviation,
               1 - constant.squared / squared_deviation);
  } else {
    report.note("r2 is left out: all labels are equal");
  }
}

void report_order(const Layout& layout, const PairOrder& order, const Sums& sums, Report& report) {
  if (order.both_classes()) {
    report.add("auc@ratio>=2", order.auc(), .5);
  } else {
    report.note("auc and gauc are left out: no labels on both sides of 2");
  }
  if (order.pairs > 0) {
    report.add("xauc", order.xauc(), .5);
    report.add("xauc_ties", order.xauc_ties(), .5);
  } else {
    report.note("xauc is left out: all labels are equal");
  }
  const size_t gauc = layout.gauc();  // chance: rows
  if (sums.users[gauc] > 0) report.add("gauc@ratio>=2", sums.value[gauc] / sums.chance[gauc], .5);
  report.skipped("gauc@ratio>=2", sums.users[gauc]);
}

void report_means(const Context& context, const Sums& sums, Report& report) {
  const Layout& layout = context.layout;
  report.add_mean("mae_macro", sums, layout.mae());
  report.add_mean("ncf.mae_per_user", sums, layout.mae());
  report.add_mean("ncf.hit_ratio@50", sums, layout.ncf_hit_ratio());
  report.add_mean("ncf.ndcg@50_ideal_of_retrieved", sums, layout.ncf_ndcg());
  report.skipped("lists@50", sums.users[layout.ncf_ndcg()]);
  report.add_mean("xauc_user", sums, layout.xauc());
  report.skipped("xauc_user", sums.users[layout.xauc()]);
  for (size_t label = 0; label < layout.labels; ++label) {
    const char* name = kBinaryLabels[label];
    report.add_mean(fmt::format("mrr/{}", name), sums, layout.mrr(label));
    report.skipped(name, sums.users[layout.mrr(label)]);
    for (size_t j = 0; j < context.k.size(); ++j) {
      const auto k = context.k[j];
      for (int metric = 0; metric < kListMetrics; ++metric) {
        report.add_mean(
            fmt::format("{}@{}/{}", kListMetricNames[static_cast<size_t>(metric)], k, name), sums,
            layout.list(label, j, static_cast<ListMetric>(metric)));
      }
      report.skipped(fmt::format("{}@{}", name, k), sums.users[layout.list(label, j, kPrecision)]);
    }
  }
  for (size_t j = 0; j < context.k.size(); ++j) {
    const auto k = context.k[j];
    report.add_mean(fmt::format("ndcg@{}/graded5", k), sums, layout.graded(j));
    report.add_mean(fmt::format("ndcg_exp@{}/graded5", k), sums, layout.graded_exp(j));
    report.skipped(fmt::format("graded5@{}", k), sums.users[layout.graded(j)]);
    report.add_mean(fmt::format("novelty@{}", k), sums, layout.novelty(j));
    report.skipped(fmt::format("lists@{}", k), sums.users[layout.novelty(j)]);
  }
}

}  // namespace

struct TestMetrics::State {
  EvaluationInput input;
  std::vector<int64_t> ks;     // ascending
  std::vector<int32_t> own;    // this rank's users, by place in the table
  std::vector<int64_t> begin;  // [own + 1] their pairs among this rank's
  std::vector<size_t> row;     // [U] of a user among the rows of all ranks
  Context context;
  std::vector<UserFacts> facts;  // [own]
  std::vector<double> chance;    // [Layout::size()] sums over users
  std::vector<double> coverage;  // [ks] chance
  std::optional<GlobalOrder> order;
  Stopwatch order_preparation;

  User user(size_t k) const {
    const auto u = static_cast<size_t>(own[k]);
    const auto first = static_cast<size_t>(input.offsets[u]);
    const auto n = static_cast<size_t>(input.offsets[u + 1]) - first;
    return {.item = input.item.subspan(first, n), .label = input.label.subspan(first, n)};
  }
  void deal_users(World world);
  /// Checks the users' pairs in passing. Collective: all ranks.
  double test_mean(Communicator& comm, ThreadPool& pool) const;
  std::vector<double> expected_coverage(Communicator& comm, ThreadPool& pool) const;
  /// Columns of the users' rows, summed; how many are there, too. Shapes: own [own users, Layout::size()].
  /// Collective: all ranks.
  std::vector<double> sum_rows(std::span<const double> own_rows, std::vector<int64_t>& counts,
                               Communicator& comm) const;
};

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

double TestMetrics::State::test_mean(Communicator& comm, ThreadPool& pool) const {
  std::vector<double> sums(own.size());
  pool.parallel_for(std::ssize(own), [&](int64_t k, int) {
    const auto [item, label, marks] = user(static_cast<size_t>(k));
    KT_CHECK(std::is_sorted(item.begin(), item.end()));
    KT_CHECK(item.empty() || (item.front() >= 0 && item.back() < std::ssize(input.item_rows)));
    double sum = 0;
    bool finite = true;
    for (const double value : label) {
      sum += value;
      finite &= std::isfinite(value);
    }
    KT_CHECK(finite);
    sums[static_cast<size_t>(k)] = sum;
  });
  const std::vector<double> all = gather_to_all<double>(sums, comm);
  double total = 0;
  for (const size_t r : row) total += all[r];
  return total / static_cast<double>(input.label.size());
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
  constexpr size_t kLanes = 4;
  const size_t stride = (width + kLanes - 1) / kLanes * kLanes;  // of an item
  std::vector<double> missed(static_cast<size_t>(last - first) * stride, 1.0);
  const int64_t tasks = std::min<int64_t>(pool.threads(), last - first);
  pool.parallel_for(tasks, [&](int64_t task, int) {
    const auto begin_item = static_cast<int32_t>(first + (last - first) * task / tasks);
    const auto end_item = static_cast<int32_t>(first + (last - first) * (task + 1) / tasks);
    std::vector<double> once(stride);
    for (size_t u = 0; u < input.users.size(); ++u) {
      const auto user_items =
          input.item.subspan(static_cast<size_t>(input.offsets[u]),
                             static_cast<size_t>(input.offsets[u + 1] - input.offsets[u]));
      const int64_t n = std::ssize(user_items);
      const auto left = [&](int64_t of, int64_t repeat) {
        return static_cast<double>(std::max<int64_t>(n - of - repeat, 0)) /
               static_cast<double>(n - repeat);
      };
      size_t lists = 0;  // shorter than the candidates
      std::fill(once.begin(), once.end(), 1);
      for (; lists < width && ks[lists] < n; ++lists) once[lists] = left(ks[lists], 0);
      int64_t repeat = 0;
      int32_t previous = -1;
      for (auto at = std::lower_bound(user_items.begin(), user_items.end(), begin_item);
           at != user_items.end() && *at < end_item; ++at) {
        double* const of_item = missed.data() + static_cast<size_t>(*at - first) * stride;
        if (*at != previous) {
          repeat = 0;
          for (size_t j = 0; j < stride; j += kLanes)
            for (size_t lane = 0; lane < kLanes; ++lane) of_item[j + lane] *= once[j + lane];
        } else {
          ++repeat;
          for (size_t j = 0; j < lists; ++j) of_item[j] *= left(ks[j], repeat);
        }
        previous = *at;
      }
    }
  });
  const std::vector<double> all = gather_to_all<double>(missed, comm);
  std::vector<double> sums(width, 0);
  for (size_t i = 0; i < all.size(); i += stride)
    for (size_t j = 0; j < width; ++j) sums[j] += 1 - all[i + j];
  for (double& sum : sums) sum /= static_cast<double>(items);
  return sums;
}

std::vector<double> TestMetrics::State::sum_rows(std::span<const double> own_rows,
                                                 std::vector<int64_t>& counts,
                                                 Communicator& comm) const {
  const size_t width = context.layout.size();
  const std::vector<double> rows = gather_to_all<double>(own_rows, comm);
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
  s.deal_users(comm.world());
  const bool durations = !input.video_duration.empty();
  const double test_mean = s.test_mean(comm, pool);
  std::vector<std::span<const double>> labels;
  std::vector<DurationPairs> pairs;
  for (size_t k = 0; k < s.own.size(); ++k) {
    const User user = s.user(k);
    labels.push_back(user.label);
    if (!durations) continue;
    pairs.push_back(
        {.duration = input.video_duration.subspan(
             static_cast<size_t>(input.offsets[static_cast<size_t>(s.own[k])]), user.label.size()),
         .label = user.label});
  }
  std::vector<uint8_t> duration_p80;
  if (durations) duration_p80 = mark_duration_p80(pairs, comm, pool);
  // Lists are shorter than the candidates; longer ones are left out.
  int64_t longest = kNcfTop;
  for (size_t u = 0; u < input.users.size(); ++u)
    longest = std::max(longest, input.offsets[u + 1] - input.offsets[u]);
  if (s.ks.empty() || s.ks.back() < longest)
    longest = s.ks.empty() ? kNcfTop : std::max<int64_t>(kNcfTop, s.ks.back());
  s.context = {.layout = {.labels = kBinaryLabels.size() - (durations ? 0 : 1), .ks = s.ks.size()},
               .k = s.ks,
               .discount = discount_sums(longest),
               .information = self_information(input.item_rows),
               .train_mean = input.train_label_mean,
               .test_mean = test_mean};

  const size_t width = s.context.layout.size();
  std::vector<double> rows(s.own.size() * width, kAbsent);
  std::vector<Worker> workers(static_cast<size_t>(pool.threads()));
  s.facts.resize(s.own.size());
  pool.parallel_for(std::ssize(s.own), [&](int64_t task, int thread) {
    const auto k = static_cast<size_t>(task);
    User user = s.user(k);
    if (durations)
      user.duration_p80 =
          std::span(duration_p80).subspan(static_cast<size_t>(s.begin[k]), user.label.size());
    s.facts[k] = user_facts(s.context, user, workers[static_cast<size_t>(thread)],
                            std::span(rows).subspan(k * width, width));
  });
  std::vector<int64_t> counts;
  s.chance = s.sum_rows(rows, counts, comm);
  s.coverage = s.expected_coverage(comm, pool);
  s.order_preparation.time([&] { s.order.emplace(labels, kPositiveRatio, comm, pool); });
}

double TestMetrics::order_preparation_s() const { return state_->order_preparation.seconds; }

TestMetrics::~TestMetrics() = default;
TestMetrics::TestMetrics(TestMetrics&&) noexcept = default;
TestMetrics& TestMetrics::operator=(TestMetrics&&) noexcept = default;

EvaluationResult TestMetrics::evaluate(std::span<const float> score, Communicator& comm,
                                       ThreadPool& pool) const {
  const State& s = *state_;
  const EvaluationInput& input = s.input;
  EvaluationResult result;
  result.users = std::ssize(input.users);
  result.pairs = std::ssize(input.item);
  result.k = s.ks;
  Report report(result);
  if (result.pairs == 0) {
    report.note("there is nothing to evaluate: the test table is empty");
    return result;
  }
  if (input.video_duration.empty())
    report.note("duration-p80 is left out: the test table has no video_duration");

  auto start = Clock::now();
  KT_CHECK(std::ssize(score) == s.begin.back());
  const auto place_of = [&](int64_t i) {
    const auto k = std::upper_bound(s.begin.begin(), s.begin.end(), i) - s.begin.begin() - 1;
    const auto at = static_cast<size_t>(k);
    return input.offsets[static_cast<size_t>(s.own[at])] + i - s.begin[at];
  };
  if (const auto bad = first_bad_score(score, comm, place_of)) {
    const auto u = std::upper_bound(input.offsets.begin(), input.offsets.end(), bad->place) -
                   input.offsets.begin() - 1;
    throw AgreedError(
        fmt::format("evaluation: the score of user index {}, item index {} is {}, expected a "
                    "finite number; the "
                    "weights have diverged: train again with a smaller train.optimizer.lr or with "
                    "train.clip_norm",
                    input.users[static_cast<size_t>(u)],
                    input.item[static_cast<size_t>(bad->place)], bad->score));
  }

  const Layout& layout = s.context.layout;
  const size_t width = layout.size(), items = input.item_rows.size();
  std::vector<double> rows(s.own.size() * width, kAbsent);
  std::vector<Worker> workers(static_cast<size_t>(pool.threads()));
  for (Worker& worker : workers) worker.listed.assign(s.ks.size(), std::vector<uint8_t>(items));
  pool.parallel_for(std::ssize(s.own), [&](int64_t task, int thread) {
    const auto k = static_cast<size_t>(task);
    const User user = s.user(k);
    user_values(s.context, user, s.facts[k],
                score.subspan(static_cast<size_t>(s.begin[k]), user.label.size()),
                workers[static_cast<size_t>(thread)], std::span(rows).subspan(k * width, width));
  });
  Sums sums{.value = {}, .chance = s.chance, .users = {}};
  sums.value = s.sum_rows(rows, sums.users, comm);
  sums.chance[layout.ncf_ndcg()] = sums.value[layout.ncf_ndcg_chance()];
  std::vector<uint8_t> listed(s.ks.size() * items, 0);
  for (const Worker& worker : workers)
    for (size_t i = 0; i < listed.size(); ++i) listed[i] |= worker.listed[i / items][i % items];
  comm.all_reduce(std::span<uint8_t>(listed), Reduction::kMax);
  result.users_seconds = seconds_since(start);

  start = Clock::now();
  const PairOrder order = s.order->count(score, comm, pool);
  result.order_seconds = seconds_since(start);

  report_errors(layout, sums, static_cast<double>(result.pairs), report);
  report_order(layout, order, sums, report);
  report_means(s.context, sums, report);
  for (size_t j = 0; j < s.ks.size(); ++j) {
    if (sums.users[layout.novelty(j)] == 0) continue;
    const auto first = listed.begin() + static_cast<std::ptrdiff_t>(j * items);
    const auto covered = std::count(first, first + static_cast<std::ptrdiff_t>(items), 1);
    report.add(fmt::format("coverage@{}", s.ks[j]),
               static_cast<double>(covered) / static_cast<double>(items), s.coverage[j]);
  }
  return result;
}

struct ValidationMetrics::State {
  std::vector<float> label;
  struct Part {
    std::vector<int64_t> begin;  // [users with rows + 1] among the rows of this rank
    std::vector<LabelOrder> order;
  };
  std::vector<Part> parts;
  int64_t first_row = 0;  // of this rank among all
  int64_t rows = 0;       // of all ranks
  std::optional<GlobalOrder> order;
};

ValidationMetrics::ValidationMetrics(std::vector<std::vector<int64_t>> user_rows,
                                     std::vector<float> label, Communicator& comm, ThreadPool& pool)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.label = std::move(label);
  int64_t place = 0;
  for (const std::vector<int64_t>& users : user_rows) {
    State::Part& part = s.parts.emplace_back();
    part.begin.push_back(place);
    for (const int64_t rows : users)
      if (rows > 0) part.begin.push_back(place += rows);
  }
  KT_CHECK(place == std::ssize(s.label));
  const std::vector<int64_t> all_rows = gather_to_all<int64_t>(std::span(&place, 1), comm);
  s.rows = std::accumulate(all_rows.begin(), all_rows.end(), int64_t{0});
  s.first_row = std::accumulate(all_rows.begin(), all_rows.begin() + comm.world().rank, int64_t{0});
  if (s.rows == 0) return;
  const std::vector<double> labels(s.label.begin(), s.label.end());
  std::vector<OrderBuffers> buffers(static_cast<size_t>(pool.threads()));
  pool.parallel_for(std::ssize(s.parts), [&](int64_t task, int thread) {
    State::Part& part = s.parts[static_cast<size_t>(task)];
    for (size_t k = 0; k + 1 < part.begin.size(); ++k)
      part.order.push_back(order_labels(
          std::span(labels).subspan(static_cast<size_t>(part.begin[k]),
                                    static_cast<size_t>(part.begin[k + 1] - part.begin[k])),
          kPositiveRatio, buffers[static_cast<size_t>(thread)]));
  });
  const std::array<std::span<const double>, 1> parts{labels};
  s.order.emplace(parts, kPositiveRatio, comm, pool);
}

ValidationMetrics::~ValidationMetrics() = default;
ValidationMetrics::ValidationMetrics(ValidationMetrics&&) noexcept = default;
ValidationMetrics& ValidationMetrics::operator=(ValidationMetrics&&) noexcept = default;

ValidationResult ValidationMetrics::evaluate(std::span<const float> score, Communicator& comm,
                                             ThreadPool& pool) const {
  const State& s = *state_;
  ValidationResult result;
  result.rows = s.rows;
  if (s.rows == 0) return result;
  KT_CHECK(score.size() == s.label.size());
  const auto bad = first_bad_score(score, comm, [&](int64_t i) { return s.first_row + i; });
  if (bad)
    throw AgreedError(fmt::format(
        "validation: the score of held-out row {} is {}, expected a finite number; the weights "
        "have "
        "diverged: train again with a smaller train.optimizer.lr or with train.clip_norm",
        bad->place, bad->score));

  constexpr size_t kWidth = 6;  // squared, absolute, both clipped, gauc, its rows
  std::vector<double> own(s.parts.size() * kWidth, 0);
  std::vector<OrderBuffers> buffers(static_cast<size_t>(pool.threads()));
  pool.parallel_for(std::ssize(s.parts), [&](int64_t task, int thread) {
    const State::Part& part = s.parts[static_cast<size_t>(task)];
    double* const sums = own.data() + static_cast<size_t>(task) * kWidth;
    for (size_t k = 0; k < part.order.size(); ++k) {
      const auto begin = static_cast<size_t>(part.begin[k]);
      const auto n = static_cast<size_t>(part.begin[k + 1]) - begin;
      Errors errors;
      for (size_t i = begin; i < begin + n; ++i)
        errors.add(static_cast<double>(s.label[i]), static_cast<double>(score[i]));
      sums[0] += errors.squared;
      sums[1] += errors.absolute;
      sums[2] += errors.squared_cut;
      sums[3] += errors.absolute_cut;
      const LabelOrder& labels = part.order[k];
      if (labels.negatives == 0 || labels.negatives == static_cast<int64_t>(n)) continue;
      const PairOrder order =
          count_pair_order(labels, score.subspan(begin, n), buffers[static_cast<size_t>(thread)]);
      sums[4] += order.auc() * static_cast<double>(n);
      sums[5] += static_cast<double>(n);
    }
  });
  std::array<double, kWidth> total{};
  const std::vector<double> all = gather_to_all<double>(own, comm);
  for (size_t i = 0; i < all.size(); ++i) total[i % kWidth] += all[i];
  const PairOrder order = s.order->count(score, comm, pool);

  const auto rows = static_cast<double>(s.rows);
  result.mse = total[0] / rows;
  result.mae = total[1] / rows;
  result.rmse = std::sqrt(result.mse);
  result.mse_clipped = total[2] / rows;
  result.mae_clipped = total[3] / rows;
  result.rmse_clipped = std::sqrt(result.mse_clipped);
  if (total[5] > 0) result.gauc = total[4] / total[5];
  if (order.pairs > 0) result.xauc = order.xauc();
  return result;
}

}  // namespace kt
