#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "trainer/sweeps/board.h"

/// What a sweep says of its trials.
namespace kt {

/// "24 trials: 20 finished, 1 failed, 3 running".
std::string counts_text(const Sweep& sweep, const Board& board);

/// Epochs that the trials train, over all rungs, and those that are done; of a trial that ended early or failed, all.
struct SweepEpochs {
  int64_t done = 0, total = 0;
};
SweepEpochs epochs_of(const Sweep& sweep, const Board& board);

/// For people: the first `most` trials, what failed, and the importance of the parameters.
std::string leaderboard_text(const Sweep& sweep, const Board& board, size_t most);
nlohmann::json leaderboard_json(const Sweep& sweep, const Board& board);
std::string leaderboard_csv(const Sweep& sweep, const Board& board);

/// The configuration of the best trial, ready to be trained, with its objective in a comment; empty while no trial has
/// one.
std::string best_yaml(const Sweep& sweep, const Board& board);

/// Writes leaderboard.csv, leaderboard.json and best.yaml in the folder of the sweep, each as a whole.
void write_leaderboard(const Sweep& sweep, const Board& board);

}  // namespace kt
