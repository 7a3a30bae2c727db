#include "trainer/metrics/metrics.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "launch/errors.h"
#include "launch/parallel_for.h"
#include "trainer/metrics/chance.h"
#include "trainer/metrics/labels.h"
#include "trainer/metrics/pair_order.h"
#include "trainer/metrics/user_sums.h"

namespace kt {

namespace {

using namespace metrics;  // the per-user half of this file

/// Users whose sums are taken together: part of the bits of every mean, whoever computes them.
constexpr int64_t kBlockUsers = 16;

void check_input(const EvaluationInput& input) {
  const int64_t pairs = std::ssize(input.item);
  KT_CHECK(std::ssize(input.offsets) == std::ssize(input.users) + 1);
  KT_CHECK(input.offsets.front() == 0 && input.offsets.back() == pairs);
  KT_CHECK(std::ssize(input.label) == pairs && std::ssize(input.score) == pairs);
  KT_CHECK(input.video_duration.empty() || std::ssize(input.video_duration) == pairs);
  KT_CHECK(std::all_of(input.k.begin(), input.k.end(), [](int64_t k) { return k >= 1; }));
  for (size_t u = 0; u < input.users.size(); ++u) {
    KT_CHECK(input.offsets[u] < input.offsets[u + 1], "user {} has no pairs", input.users[u]);
    for (auto i = static_cast<size_t>(input.offsets[u]);
         i < static_cast<size_t>(input.offsets[u + 1]); ++i) {
      KT_CHECK(std::isfinite(input.label[i]));
      KT_CHECK(input.item[i] >= 0 && input.item[i] < std::ssize(input.item_rows));
      if (!std::isfinite(input.score[i])) {
        user_error(
            "evaluation: the score of user index {}, item index {} is {}, expected a finite "
            "number; "
            "the weights have diverged: train again with a smaller train.optimizer.lr or with "
            "train.clip_norm",
            input.users[u], input.item[i], input.score[i]);
      }
    }
  }
}

/// Expected share of the catalogue in random lists: item i is missed by a user of n candidates, i
/// once among them, with probability 1 - K / n, and the users' orders are independent. A second row
/// of the same item in the same user is missed too with (n - K - 1) / (n - 1), and so on.
double expected_coverage(const EvaluationInput& input, int64_t k) {
  std::vector<double> missed(input.item_rows.size(), 1.0);
  for (size_t u = 0; u + 1 < input.offsets.size(); ++u) {
    const int64_t n = input.offsets[u + 1] - input.offsets[u];
    if (n <= k) continue;
    const double once = static_cast<double>(n - k) / static_cast<double>(n);
    int64_t repeat = 0;
    for (int64_t i = input.offsets[u]; i < input.offsets[u + 1]; ++i) {
      const int32_t item = input.item[static_cast<size_t>(i)];
      const bool again = i > input.offsets[u] && input.item[static_cast<size_t>(i - 1)] == item;
      repeat = again ? repeat + 1 : 0;
      missed[static_cast<size_t>(item)] *=
          repeat == 0 ? once
                      : static_cast<double>(std::max<int64_t>(n - k - repeat, 0)) /
                            static_cast<double>(n - repeat);
    }
  }
  double sum = 0;
  for (double probability : missed) sum += 1 - probability;
  return sum / static_cast<double>(missed.size());
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

double test_mean(const EvaluationInput& input) {
  double total = 0;
  for (size_t u = 0; u < input.users.size(); ++u) {
    double sum = 0;
    for (int64_t i = input.offsets[u]; i < input.offsets[u + 1]; ++i) {
      sum += input.label[static_cast<size_t>(i)];
    }
    total += sum;
  }
  return total / static_cast<double>(input.label.size());
}

/// Writes names into the result.
class Report {
 public:
  explicit Report(EvaluationResult& result) : result_(result) {}

  void add(const std::string& name, double value, double chance) {
    result_.metrics[name] = value;
    result_.chance[name] = chance;
  }
  void add(const std::string& name, const Mean& mean) {
    if (mean.users == 0) return;
    add(name, mean.value / static_cast<double>(mean.users),
        mean.chance / static_cast<double>(mean.users));
  }
  void skipped(const std::string& label, int64_t counted) {
    result_.skipped_users[label] = result_.users - counted;
  }
  void note(std::string text) { result_.notes.push_back(std::move(text)); }

 private:
  EvaluationResult& result_;
};

void report_errors(const UserSums& sums, double pairs, Report& report) {
  const Errors &model = sums.model, &constant = sums.constant;
  report.add("mse", model.squared / pairs, constant.squared / pairs);
  report.add("rmse", std::sqrt(model.squared / pairs), std::sqrt(constant.squared / pairs));
  report.add("mae", model.absolute / pairs, constant.absolute / pairs);
  report.add("mse_clipped", model.squared_cut / pairs, constant.squared_cut / pairs);
  report.add("rmse_clipped", std::sqrt(model.squared_cut / pairs),
             std::sqrt(constant.squared_cut / pairs));
  report.add("mae_clipped", model.absolute_cut / pairs, constant.absolute_cut / pairs);
  if (sums.squared_deviation > 0) {
    report.add("r2", 1 - model.squared / sums.squared_deviation,
               1 - constant.squared / sums.squared_deviation);
  } else {
    report.note("r2 is left out: all labels are equal");
  }
}

void report_order(const PairOrder& order, const UserSums& sums, Report& report) {
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
  if (sums.gauc_rows > 0) {
    report.add("gauc@ratio>=2", sums.gauc / static_cast<double>(sums.gauc_rows), .5);
  }
  report.skipped("gauc@ratio>=2", sums.gauc_users);
}

void report_means(const Context& context, const std::vector<Mean>& means, Report& report) {
  const Layout& layout = context.layout;
  report.add("mae_macro", means[layout.mae()]);
  report.add("ncf.mae_per_user", means[layout.mae()]);
  report.add("ncf.hit_ratio@50", means[layout.ncf_hit_ratio()]);
  report.add("ncf.ndcg@50_ideal_of_retrieved", means[layout.ncf_ndcg()]);
  report.skipped("lists@50", means[layout.ncf_ndcg()].users);
  report.add("xauc_user", means[layout.xauc()]);
  report.skipped("xauc_user", means[layout.xauc()].users);
  for (size_t label = 0; label < layout.labels; ++label) {
    const char* name = kBinaryLabels[label];
    report.add(fmt::format("mrr/{}", name), means[layout.mrr(label)]);
    report.skipped(name, means[layout.mrr(label)].users);
    for (size_t j = 0; j < context.k.size(); ++j) {
      const auto k = context.k[j];
      for (int metric = 0; metric < kListMetrics; ++metric) {
        report.add(fmt::format("{}@{}/{}", kListMetricNames[static_cast<size_t>(metric)], k, name),
                   means[layout.list(label, j, static_cast<ListMetric>(metric))]);
      }
      report.skipped(fmt::format("{}@{}", name, k), means[layout.list(label, j, kPrecision)].users);
    }
  }
  for (size_t j = 0; j < context.k.size(); ++j) {
    const auto k = context.k[j];
    report.add(fmt::format("ndcg@{}/graded5", k), means[layout.graded(j)]);
    report.add(fmt::format("ndcg_exp@{}/graded5", k), means[layout.graded_exp(j)]);
    report.skipped(fmt::format("graded5@{}", k), means[layout.graded(j)].users);
    report.add(fmt::format("novelty@{}", k), means[layout.novelty(j)]);
    report.skipped(fmt::format("lists@{}", k), means[layout.novelty(j)].users);
  }
}

}  // namespace

EvaluationResult evaluate_metrics(const EvaluationInput& input, int threads) {
  check_input(input);
  ThreadPool pool(threads);
  EvaluationResult result;
  result.users = std::ssize(input.users);
  result.pairs = std::ssize(input.item);
  result.k.assign(input.k.begin(), input.k.end());
  std::sort(result.k.begin(), result.k.end());
  result.k.erase(std::unique(result.k.begin(), result.k.end()), result.k.end());
  Report report(result);
  if (result.pairs == 0) {
    report.note("there is nothing to evaluate: the test table is empty");
    return result;
  }

  const bool durations = !input.video_duration.empty();
  if (!durations) report.note("duration-p80 is left out: the test table has no video_duration");
  const std::vector<uint8_t> duration_p80 =
      durations ? mark_duration_p80(input.video_duration, input.label) : std::vector<uint8_t>{};
  const int64_t longest = result.k.empty() ? kNcfTop : std::max<int64_t>(kNcfTop, result.k.back());
  const Context context{
      .layout = {.labels = kBinaryLabels.size() - (durations ? 0 : 1), .ks = result.k.size()},
      .k = result.k,
      .discount = discount_sums(longest),
      .information = self_information(input.item_rows),
      .train_mean = input.train_label_mean,
      .test_mean = test_mean(input)};

  const int64_t blocks = (result.users + kBlockUsers - 1) / kBlockUsers;
  std::vector<UserSums> block_sums(static_cast<size_t>(blocks));
  std::vector<Worker> workers(static_cast<size_t>(pool.threads()));
  for (Worker& worker : workers) {
    worker.listed.assign(result.k.size(), std::vector<uint8_t>(input.item_rows.size()));
  }
  pool.parallel_for(blocks, [&](int64_t block, int thread) {
    UserSums& sums = block_sums[static_cast<size_t>(block)];
    sums.means.resize(context.layout.size());
    const int64_t end = std::min((block + 1) * kBlockUsers, result.users);
    for (int64_t u = block * kBlockUsers; u < end; ++u) {
      const auto begin = static_cast<size_t>(input.offsets[static_cast<size_t>(u)]);
      const auto n = static_cast<size_t>(input.offsets[static_cast<size_t>(u) + 1]) - begin;
      const User user{.item = input.item.subspan(begin, n),
                      .label = input.label.subspan(begin, n),
                      .score = input.score.subspan(begin, n),
                      .duration_p80 = durations ? std::span(duration_p80).subspan(begin, n)
                                                : std::span<const uint8_t>{}};
      add_user(context, user, workers[static_cast<size_t>(thread)], sums);
    }
  });
  UserSums total = std::move(block_sums[0]);
  for (size_t block = 1; block < block_sums.size(); ++block) total.merge(block_sums[block]);

  std::vector<LabelScore> rows(input.label.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = {input.label[i], input.score[i]};
  std::vector<float> scratch;
  const PairOrder order = count_pair_order(rows, scratch, kPositiveRatio, &pool);

  report_errors(total, static_cast<double>(result.pairs), report);
  report_order(order, total, report);
  report_means(context, total.means, report);
  for (size_t j = 0; j < result.k.size(); ++j) {
    if (total.means[context.layout.novelty(j)].users == 0) continue;
    int64_t covered = 0;
    for (size_t item = 0; item < input.item_rows.size(); ++item) {
      covered += std::any_of(workers.begin(), workers.end(),
                             [&](const Worker& worker) { return worker.listed[j][item] != 0; });
    }
    report.add(fmt::format("coverage@{}", result.k[j]),
               static_cast<double>(covered) / static_cast<double>(input.item_rows.size()),
               expected_coverage(input, result.k[j]));
  }
  return result;
}

ValidationResult validation_metrics(std::span<const int64_t> offsets, std::span<const float> label,
                                    std::span<const float> score, int threads) {
  const size_t n = label.size();
  KT_CHECK(n > 0 && score.size() == n && !offsets.empty());
  KT_CHECK(offsets.front() == 0 && offsets.back() == static_cast<int64_t>(n));
  for (size_t i = 0; i < n; ++i) {
    if (!std::isfinite(score[i])) {
      user_error(
          "validation: the score of held-out row {} is {}, expected a finite number; the weights "
          "have "
          "diverged: train again with a smaller train.optimizer.lr or with train.clip_norm",
          i, score[i]);
    }
  }
  ThreadPool pool(threads);
  const int64_t users = std::ssize(offsets) - 1;
  const int64_t blocks = (users + kBlockUsers - 1) / kBlockUsers;
  std::vector<UserSums> block_sums(static_cast<size_t>(blocks));
  std::vector<Worker> workers(static_cast<size_t>(pool.threads()));
  pool.parallel_for(blocks, [&](int64_t block, int thread) {
    UserSums& sums = block_sums[static_cast<size_t>(block)];
    Worker& worker = workers[static_cast<size_t>(thread)];
    const int64_t end = std::min((block + 1) * kBlockUsers, users);
    for (int64_t u = block * kBlockUsers; u < end; ++u) {
      Errors errors;
      worker.rows.clear();
      for (auto i = static_cast<size_t>(offsets[static_cast<size_t>(u)]);
           i < static_cast<size_t>(offsets[static_cast<size_t>(u) + 1]); ++i) {
        const auto row_label = static_cast<double>(label[i]);
        errors.add(row_label, static_cast<double>(score[i]));
        worker.rows.push_back({row_label, score[i]});
      }
      sums.model.merge(errors);
      const PairOrder order = count_pair_order(worker.rows, worker.scores, kPositiveRatio, nullptr);
      if (order.both_classes()) {
        const int64_t rows = order.positives + order.negatives;
        sums.gauc += order.auc() * static_cast<double>(rows);
        sums.gauc_rows += rows;
      }
    }
  });
  UserSums total;
  for (const UserSums& sums : block_sums) total.merge(sums);

  std::vector<LabelScore> rows(n);
  for (size_t i = 0; i < n; ++i) rows[i] = {static_cast<double>(label[i]), score[i]};
  std::vector<float> scratch;
  const PairOrder order = count_pair_order(rows, scratch, kPositiveRatio, &pool);

  ValidationResult result;
  result.rows = static_cast<int64_t>(n);
  result.mse = total.model.squared / static_cast<double>(n);
  result.mae = total.model.absolute / static_cast<double>(n);
  result.rmse = std::sqrt(result.mse);
  if (total.gauc_rows > 0) result.gauc = total.gauc / static_cast<double>(total.gauc_rows);
  if (order.pairs > 0) result.xauc = order.xauc();
  return result;
}

}  // namespace kt
