#include "trainer/sweeps/leaderboard.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <numeric>

#include "io/config/writers.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "trainer/evaluation/score_files.h"
#include "trainer/sweeps/importance.h"

namespace kt {
namespace {

using nlohmann::json;

constexpr std::array kStates = {TrialState::kFinished, TrialState::kFailed, TrialState::kRunning,
                                TrialState::kWaiting};

std::string_view name_of(TrialState state) {
  switch (state) {
    case TrialState::kWaiting:
      return "waiting";
    case TrialState::kRunning:
      return "running";
    case TrialState::kFinished:
      return "finished";
    case TrialState::kFailed:
      return "failed";
  }
  return "";
}

std::string text_of(const json& value) {
  if (value.is_null()) return "";
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  return value.is_string() ? value.get<std::string>() : to_text(value);
}

/// Keys for people: the last part where it is one's alone.
std::vector<std::string> short_names(const Sweep& sweep) {
  const auto last = [](const std::string& key) { return key.substr(key.rfind('.') + 1); };
  std::vector<std::string> names;
  for (const Parameter& one : sweep.file.parameters) {
    const auto same = std::ranges::count_if(sweep.file.parameters, [&](const Parameter& other) {
      return last(other.key) == last(one.key);
    });
    names.push_back(same == 1 ? last(one.key) : one.key);
  }
  return names;
}

/// Lines of right-aligned columns.
std::string table_of(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows)
    for (size_t k = 0; k < row.size(); ++k) widths[k] = std::max(widths[k], row[k].size());
  std::string text;
  for (const auto& row : rows) {
    for (size_t k = 0; k < row.size(); ++k) text += fmt::format("  {:>{}}", row[k], widths[k]);
    text += "\n";
  }
  return text;
}

int64_t steps_of(const Board& board) {
  return std::accumulate(
      board.standings.begin(), board.standings.end(), int64_t{0},
      [](int64_t sum, const Standing& standing) { return sum + standing.steps; });
}

}  // namespace

std::string counts_text(const Sweep& sweep, const Board& board) {
  std::vector<std::string> parts;
  for (const TrialState state : kStates) {
    const auto count = std::ranges::count(board.standings, state, &Standing::state);
    if (count > 0) parts.push_back(fmt::format("{} {}", count, name_of(state)));
  }
  std::string rung;
  if (sweep.rungs.size() > 1 && !board.complete)
    rung = fmt::format(", rung {} of {} ({} epochs)", board.rung + 1, sweep.rungs.size(),
                       sweep.rungs[board.rung]);
  return fmt::format("{} trials: {}{}; {} steps", sweep.trials.size(), fmt::join(parts, ", "), rung,
                     steps_of(board));
}

SweepEpochs epochs_of(const Sweep& sweep, const Board& board) {
  SweepEpochs epochs;
  for (const Standing& standing : board.standings) {
    const Trial& trial = sweep.trials[standing.trial];
    epochs.done += standing.state == TrialState::kFailed ? sweep.epochs_of(trial, standing.rung)
                                                         : standing.epochs;
    epochs.total += sweep.epochs_of(trial, 0);
  }
  size_t members = sweep.trials.size();
  for (size_t rung = 1; rung < sweep.rungs.size(); ++rung) {
    members = std::max<size_t>(1, members / static_cast<size_t>(sweep.file.search.eta));
    epochs.total += static_cast<int64_t>(members) * (sweep.rungs[rung] - sweep.rungs[rung - 1]);
  }
  return epochs;
}

std::string leaderboard_text(const Sweep& sweep, const Board& board, size_t most) {
  std::vector<std::vector<std::string>> rows = {
      {"", "trial", sweep.objective.metric, "epochs", "steps", "seconds", "state"}};
  for (const std::string& name : short_names(sweep)) rows.front().push_back(name);
  const std::vector<size_t> order = ranking_of(sweep, board);
  for (size_t place = 0; place < std::min(order.size(), most); ++place) {
    const Standing& standing = board.standings[order[place]];
    const Trial& trial = sweep.trials[order[place]];
    const auto objective = last_objective(standing);
    auto& row = rows.emplace_back();
    row = {std::to_string(place + 1),
           trial.hash,
           objective ? fmt::format("{:.5f}", *objective) : "-",
           std::to_string(standing.epochs),
           std::to_string(standing.steps),
           fmt::format("{:.1f}", standing.seconds),
           std::string(name_of(standing.state))};
    for (const Parameter& parameter : sweep.file.parameters) {
      const std::string value = text_of(trial.values.at(parameter.key));
      row.push_back(value.empty() ? "-" : value);
    }
  }
  std::string text =
      fmt::format("{}: {}, {} is better; {}\n{}", sweep.file.folder.string(),
                  sweep.objective.title(), sweep.objective.smaller_is_better ? "smaller" : "larger",
                  counts_text(sweep, board), table_of(rows));
  if (order.size() > most) text += fmt::format("  and {} more\n", order.size() - most);
  for (const Standing& standing : board.standings)
    if (standing.state == TrialState::kFailed)
      text += fmt::format("  failed: {}: {}\n", sweep.trials[standing.trial].hash, standing.fault);
  std::vector<std::string> shares;
  for (const Importance& one : importance_of(sweep, board))
    shares.push_back(fmt::format("{} {:.2f}", one.key, one.share));
  if (!shares.empty()) text += fmt::format("  importance: {}\n", fmt::join(shares, ", "));
  text.pop_back();
  return text;
}

json leaderboard_json(const Sweep& sweep, const Board& board) {
  json trials = json::array();
  for (const size_t k : ranking_of(sweep, board)) {
    const Standing& standing = board.standings[k];
    const auto objective = last_objective(standing);
    json trial = {
        {"trial", sweep.trials[k].hash},   {"objective", objective ? json(*objective) : json()},
        {"epochs", standing.epochs},       {"steps", standing.steps},
        {"seconds", standing.seconds},     {"state", name_of(standing.state)},
        {"values", sweep.trials[k].values}};
    if (sweep.rungs.size() > 1) trial["rung"] = standing.rung + 1;
    if (!standing.fault.empty()) trial["fault"] = standing.fault;
    trials.push_back(std::move(trial));
  }
  json importance = json::object();
  for (const Importance& one : importance_of(sweep, board))
    importance[one.key] = {{"share", one.share}, {"trials", one.trials}};
  json counts = json::object();
  for (const TrialState state : kStates)
    counts[std::string(name_of(state))] =
        std::ranges::count(board.standings, state, &Standing::state);
  json out = {
      {"sweep", sweep.file.path.string()},
      {"objective",
       {{"metric", sweep.objective.metric},
        {"goal", sweep.objective.smaller_is_better ? "min" : "max"},
        {"of", sweep.objective.on_test ? "test table: selected on test" : "validation rows"}}},
      {"complete", board.complete},
      {"counts", counts},
      {"steps", steps_of(board)},
      {"importance", importance},
      {"trials", trials}};
  if (sweep.rungs.size() > 1) out["rungs"] = sweep.rungs;
  return out;
}

std::string leaderboard_csv(const Sweep& sweep, const Board& board) {
  std::vector<std::string> head = {"place",   "trial", sweep.objective.metric, "epochs", "steps",
                                   "seconds", "state"};
  if (sweep.objective.on_test) head[2] += " (selected on test)";
  for (const Parameter& parameter : sweep.file.parameters) head.push_back(parameter.key);
  std::string text = fmt::format("{}\n", fmt::join(head, ","));
  int64_t place = 0;
  for (const size_t k : ranking_of(sweep, board)) {
    const Standing& standing = board.standings[k];
    const auto objective = last_objective(standing);
    text += fmt::format("{},{},{},{},{},{},{}", ++place, sweep.trials[k].hash,
                        objective ? fmt::format("{}", *objective) : "", standing.epochs,
                        standing.steps, standing.seconds, name_of(standing.state));
    for (const Parameter& parameter : sweep.file.parameters)
      text += fmt::format(",{}", csv_field(text_of(sweep.trials[k].values.at(parameter.key))));
    text += "\n";
  }
  return text;
}

std::string best_yaml(const Sweep& sweep, const Board& board) {
  const size_t best = ranking_of(sweep, board).front();
  const Standing& standing = board.standings[best];
  const auto objective = last_objective(standing);
  if (!objective) return "";
  Config config = sweep.trials[best].config;
  config.run.dir.clear();
  return fmt::format(
      "# The best of {} trials of {} so far, by {}: {} after {} epochs (trial {}).\n{}",
      sweep.trials.size(), sweep.file.path.string(), sweep.objective.title(), *objective,
      standing.epochs, sweep.trials[best].hash, to_yaml(config));
}

void write_leaderboard(const Sweep& sweep, const Board& board) {
  const std::filesystem::path& folder = sweep.file.folder;
  replace_file(folder / "leaderboard.csv", leaderboard_csv(sweep, board));
  replace_file(folder / "leaderboard.json", to_text(leaderboard_json(sweep, board), 1) + "\n");
  const std::string best = best_yaml(sweep, board);
  if (!best.empty()) replace_file(folder / "best.yaml", best);
}

}  // namespace kt
