#include "trainer/sweeps/board.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "trainer/sweeps/rungs.h"

namespace kt {
namespace {

/// Brings `standing` up to what the attempts say of a rung.
void look_at_rung(const Sweep& sweep, size_t rung, const std::vector<Attempt>& attempts,
                  Obituary& obituary, Standing& standing) {
  const Trial& trial = sweep.trials[standing.trial];
  const int64_t epochs = sweep.epochs_of(trial, rung);
  standing.rung = rung;
  standing.state = TrialState::kWaiting;
  standing.attempts = 0;
  for (const Attempt& attempt : attempts) {
    if (attempt.epochs != epochs || !attempt.exit) continue;
    standing.attempts += attempt.counts;
    if (attempt.counts)
      standing.fault = fmt::format("exit {}: {}", *attempt.exit, attempt.last_lines);
    if (*attempt.exit != 0 || attempt.result.is_null()) continue;
    standing.state = TrialState::kFinished;
    standing.objective.resize(rung + 1);
    standing.objective[rung] = value_of(sweep.objective, attempt.result);
    standing.epochs = epochs;
    standing.steps = attempt.result.at("steps");
    standing.seconds = attempt.result.at("seconds");
  }
  if (standing.state == TrialState::kFinished) return;
  if (!attempts.empty() && !attempts.back().exit &&
      !obituary.is_dead(sweep.folder_of(trial), attempts.back(), Obituary::Clock::now()))
    standing.state = TrialState::kRunning;
  else if (standing.attempts > sweep.file.trials.retries)
    standing.state = TrialState::kFailed;
  standing.is_open = standing.state == TrialState::kWaiting;
}

}  // namespace

Board read_board(const Sweep& sweep, Obituary& obituary) {
  Board board;
  std::vector<std::vector<Attempt>> attempts;
  for (size_t k = 0; k < sweep.trials.size(); ++k) {
    attempts.push_back(read_attempts(sweep.folder_of(sweep.trials[k])));
    board.standings.push_back(
        {.trial = k, .next_attempt = static_cast<int64_t>(attempts.back().size()) + 1});
  }
  std::vector<size_t> members(sweep.trials.size());
  std::iota(members.begin(), members.end(), 0);
  for (size_t rung = 0; rung < sweep.rungs.size(); ++rung) {
    board.rung = rung;
    bool decided = true;
    std::vector<RungResult> results;
    for (const size_t k : members) {
      Standing& standing = board.standings[k];
      look_at_rung(sweep, rung, attempts[k], obituary, standing);
      decided = decided &&
                (standing.state == TrialState::kFinished || standing.state == TrialState::kFailed);
      const bool has_value = standing.state == TrialState::kFinished;
      results.push_back(
          {sweep.trials[k].hash, has_value ? standing.objective[rung] : std::nullopt});
    }
    if (!decided) return board;
    if (rung + 1 == sweep.rungs.size()) break;
    std::vector<size_t> next;
    for (const size_t at : promoted(results, sweep.objective, sweep.file.search.eta))
      next.push_back(members[at]);
    members = std::move(next);
  }
  board.complete = true;
  return board;
}

std::optional<double> last_objective(const Standing& standing) {
  return standing.objective.empty() ? std::nullopt : standing.objective.back();
}

std::vector<size_t> ranking_of(const Sweep& sweep, const Board& board) {
  std::vector<size_t> order(board.standings.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](size_t a, size_t b) {
    const Standing& left = board.standings[a];
    const Standing& right = board.standings[b];
    const auto of_left = last_objective(left), of_right = last_objective(right);
    if (of_left.has_value() != of_right.has_value()) return of_left.has_value();
    if (of_left && left.objective.size() != right.objective.size())
      return left.objective.size() > right.objective.size();
    if (of_left && *of_left != *of_right) return sweep.objective.better(*of_left, *of_right);
    return sweep.trials[a].hash < sweep.trials[b].hash;
  });
  return order;
}

}  // namespace kt
