#include "trainer/evaluation/groups.h"

#include <fmt/core.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "launch/collectives/agree.h"
#include "sharding/plan.h"
#include "trainer/run/share.h"

namespace kt {
namespace {

constexpr int kTenths = 10;

using RowsByNumber = std::map<int64_t, int64_t>;

/// Those of all ranks added up. Collective: all ranks.
RowsByNumber over_ranks(const RowsByNumber& own, Communicator& comm) {
  std::vector<int64_t> flat;
  for (const auto& [number, rows] : own) flat.insert(flat.end(), {number, rows});
  const std::vector<int64_t> all = gather_to_all<int64_t>(flat, comm);
  RowsByNumber rows;
  for (size_t k = 0; k < all.size(); k += 2) rows[all[k]] += all[k + 1];
  return rows;
}

/// Training rows by the duration of their video. Collective: all ranks.
RowsByNumber rows_by_duration(const Problem& problem, MpiCommunicator& comm) {
  RowsByNumber own;
  agree(comm, [&] {
    const Range shards = shards_of_rank(problem.dataset.shards(), comm.world());
    for (int64_t number = shards.begin; number < shards.end; ++number)
      for (const int32_t duration : problem.dataset.read_durations(number).video_duration)
        ++own[duration];
  });
  return over_ranks(own, comm);
}

/// Training rows by how many their user has. Collective: all ranks.
RowsByNumber rows_by_activity(const Problem& problem, Communicator& comm) {
  const Range own = problem.user_rows(comm.world());
  RowsByNumber rows;
  for (int64_t k = 0; k < problem.users.size(); ++k)
    if (own.contains(problem.users.row[k]))
      rows[problem.users.user_rows[k]] += problem.users.user_rows[k];
  return over_ranks(rows, comm);
}

/// Training rows by how many their video has. Shapes: item_rows [items].
RowsByNumber rows_by_popularity(std::span<const int64_t> item_rows) {
  RowsByNumber result;
  for (const int64_t count : item_rows) result[count] += count;
  return result;
}

/// A table of some pairs of another, and the scores of this rank's users of it.
struct Part {
  std::vector<int32_t> users, user_rank, item;
  std::vector<int64_t> user_rows, offsets = {0};
  std::vector<double> label;
  std::vector<uint32_t> by_label, label_rank;  // where the other table has them
  std::vector<float> score;
  int64_t from = 0, to = 0;  // numbers of the pairs

  void end_user(const EvaluationInput& input, size_t u) {
    if (offsets.back() == std::ssize(item)) return;
    users.push_back(input.users[u]);
    user_rank.push_back(input.user_rank[u]);
    user_rows.push_back(input.user_rows[u]);
    offsets.push_back(std::ssize(item));
  }
};

/// Of a user (its place in the table) and a pair.
using NumberOf = std::function<int64_t(size_t user, size_t pair)>;

std::vector<Part> parts_by(const Tenths& tenths, const NumberOf& number_of,
                           const EvaluationInput& input, std::span<const float> score, int rank) {
  std::vector<Part> parts(kTenths);
  size_t next_score = 0;
  std::vector<std::pair<Part*, int64_t>> places;  // of a user's pairs
  for (size_t u = 0; u < input.users.size(); ++u) {
    places.clear();
    for (auto k = static_cast<size_t>(input.offsets[u]);
         k < static_cast<size_t>(input.offsets[u + 1]); ++k) {
      const int64_t number = number_of(u, k);
      Part& part = parts[static_cast<size_t>(tenths.of(number))];
      part.from = part.item.empty() ? number : std::min(part.from, number);
      part.to = part.item.empty() ? number : std::max(part.to, number);
      part.item.push_back(input.item[k]);
      part.label.push_back(input.label[k]);
      if (input.user_rank[u] == rank) part.score.push_back(score[next_score++]);
      places.emplace_back(&part, std::ssize(part.item) - 1 - part.offsets.back());
    }
    for (size_t i = 0; i < places.size() && !input.by_label.empty(); ++i) {
      const size_t k = static_cast<size_t>(input.offsets[u]) + i;
      const auto [part, place] = places[input.by_label[k]];
      part->by_label.push_back(static_cast<uint32_t>(place));
      part->label_rank.push_back(input.label_rank[k]);
    }
    for (Part& part : parts) part.end_user(input, u);
  }
  return parts;
}

/// What is told of a part. Collective: all ranks.
nlohmann::json evaluate_part(const Part& part, std::span<const BinaryLabel> labels,
                             const EvaluationInput& whole, MpiCommunicator& comm,
                             ThreadPool& pool) {
  EvaluationInput input = whole;
  input.users = part.users;
  input.user_rank = part.user_rank;
  input.user_rows = part.user_rows;
  input.offsets = part.offsets;
  input.item = part.item;
  input.label = part.label;
  input.by_label = part.by_label;
  input.label_rank = part.label_rank;
  input.label_sums = {};
  input.labels = labels;
  input.video_duration = {};
  input.duration_p80 = {};
  input.item_number = {};
  input.seen_offsets = {};
  const EvaluationResult result = TestMetrics(input, comm, pool).evaluate(part.score, comm, pool);
  nlohmann::json metrics = nlohmann::json::object(), chance = metrics;
  for (const auto& [name, value] : result.metrics) {
    if (name != "mse_clipped" && name != "mae_clipped" && !name.starts_with("gauc@") &&
        !name.starts_with("ndcg@"))
      continue;
    metrics[name] = value;
    chance[name] = result.chance.at(name);
  }
  return {{"from", part.from},
          {"to", part.to},
          {"users", result.users},
          {"pairs", result.pairs},
          {"metrics", std::move(metrics)},
          {"chance", std::move(chance)}};
}

}  // namespace

Tenths::Tenths(const std::map<int64_t, int64_t>& rows) {
  int64_t all = 0, smaller = 0;
  for (const auto& [number, count] : rows) all += count;
  for (const auto& [number, count] : rows) {
    if (count == 0) continue;
    of_number_[number] = static_cast<int>(kTenths * smaller / all);
    smaller += count;
  }
}

int Tenths::of(int64_t number) const {
  // Of a number that no row has, as many rows are smaller as of the next one.
  const auto next = of_number_.lower_bound(number);
  return next == of_number_.end() ? kTenths - 1 : next->second;
}

nlohmann::json evaluate_groups(const EvaluationInput& input, std::span<const float> score,
                               const Problem& problem, MpiCommunicator& comm, ThreadPool& pool) {
  std::vector<BinaryLabel> labels;
  for (const BinaryLabel& label : input.labels)
    if (label.kind == BinaryLabel::Kind::kThreshold) labels.push_back(label);
  nlohmann::json groups = nlohmann::json::object();
  const auto add = [&](const char* name, const Tenths& tenths, const NumberOf& number_of) {
    nlohmann::json& lines = groups[name] = nlohmann::json::array();
    const std::vector<Part> parts = parts_by(tenths, number_of, input, score, comm.world().rank);
    for (size_t tenth = 0; tenth < parts.size(); ++tenth) {
      if (parts[tenth].item.empty()) continue;
      lines.push_back(evaluate_part(parts[tenth], labels, input, comm, pool));
      lines.back()["tenth"] = tenth + 1;
    }
  };
  if (problem.dataset.has_durations() && !input.video_duration.empty())
    add("duration", Tenths(rows_by_duration(problem, comm)),
        [&](size_t, size_t pair) { return input.video_duration[pair]; });
  add("activity", Tenths(rows_by_activity(problem, comm)),
      [&](size_t user, size_t) { return input.user_rows[user]; });
  add("popularity", Tenths(rows_by_popularity(input.item_rows)),
      [&](size_t, size_t pair) { return input.item_rows[static_cast<size_t>(input.item[pair])]; });
  return groups;
}

std::string groups_table(const nlohmann::json& groups) {
  if (groups.is_null()) return {};
  std::string text;
  for (const auto& [name, unit] : {std::pair{"duration", "ms"},
                                   {"activity", "rows of the user"},
                                   {"popularity", "rows of the video"}}) {
    if (!groups.contains(name)) continue;
    // The metrics of the last threshold and the shortest list, as they are in all lines.
    std::string shown_gauc, shown_ndcg;
    for (const nlohmann::json& line : groups.at(name))
      for (const auto& [metric, value] : line.at("metrics").items()) {
        if (metric.starts_with("gauc@")) shown_gauc = std::max(shown_gauc, metric);
        if (metric.starts_with("ndcg@") && metric.find("graded") == std::string::npos &&
            (shown_ndcg.empty() || metric.size() < shown_ndcg.size() ||
             (metric.size() == shown_ndcg.size() && metric > shown_ndcg)))
          shown_ndcg = metric;
      }
    text += fmt::format("by {}, tenths of the training rows; {}\n", name, unit);
    text += fmt::format("{:>16} {:>10} {:>8} {:>17} {:>21}\n", "from - to", "pairs", "mae <= 5",
                        shown_gauc, shown_ndcg);
    const auto cell = [](const nlohmann::json& line, const std::string& metric, bool chance) {
      if (!line.at("metrics").contains(metric)) return std::string("-");
      std::string value = fmt::format("{:.4f}", line.at("metrics").at(metric).get<double>());
      return chance ? value + fmt::format(" ({:.4f})", line.at("chance").at(metric).get<double>())
                    : value;
    };
    for (const nlohmann::json& line : groups.at(name))
      text += fmt::format(
          "{:>16} {:>10} {:>8} {:>17} {:>21}\n",
          fmt::format("{} - {}", line.at("from").get<int64_t>(), line.at("to").get<int64_t>()),
          line.at("pairs").get<int64_t>(), cell(line, "mae_clipped", false),
          cell(line, shown_gauc, false), cell(line, shown_ndcg, true));
  }
  return text;
}

}  // namespace kt
