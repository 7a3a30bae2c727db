#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace kt {

/// The most curves that a picture lays over each other, and so the trials of a sweep whose curves are read.
inline constexpr size_t kMostCurves = 10;

/// What a report says of `paths`: folders of runs or sweeps, folders that hold some, and files that `compare --json`
/// printed. No data set is read and nothing is evaluated. {runs[], sweeps[], comparisons[]}:
/// - a run: {name, folder, state (finished, stopped early, unfinished), step, config, result (null without one),
///   dataset_hash, wall_seconds (null), resumed_from[], best {metric, step, value} (null), notes[], and the keys of
///   run_curves.h}. No two have one name.
/// - a sweep: its leaderboard.json, {name, folder, synthetic (absent while no trial has ended)}, and `curves` [{trial, and the keys of run_curves.h}] of its best.
/// - a comparison: what the file holds, and {name}.
/// Throws: UserError for what is none of these, or damaged.
nlohmann::json run_numbers(const std::vector<std::string>& paths);

}  // namespace kt
