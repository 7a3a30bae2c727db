#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace kt {

/// Points that a curve keeps at least of a longer one, and at most twice as many.
inline constexpr size_t kCurvePoints = 250;

/// metrics.jsonl of a run, read line by line in memory that does not grow with it:
/// {lines (of intervals), lines_a_point, last_step, intervals {KEY: []}, epochs[], evaluations[], rewinds[],
/// unfinished_line (bool: the last line is cut or damaged, and left out)}. Neighbours of `intervals` are joined where
/// there are many: step of the last, the largest gradient_norm_max, means of the others; null where a line has no
/// finite number. Without the file nothing but zeros and empty lists.
/// Throws: UserError for a damaged line before the last.
nlohmann::json read_run_curves(const std::filesystem::path& run_dir);

}  // namespace kt
