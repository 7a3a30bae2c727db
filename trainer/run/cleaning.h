#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/config/config.h"
#include "io/dataset/dataset.h"

/// Cleaning that a system wants, when training rows are loaded: the keys `data.filter.*` and `data.repeats`.
/// Test rows stay as they are.
namespace kt {

/// Why a row is left out, in the order in which rows are asked: the first reason counts.
enum class Drop {
  kNotPositive,
  kTooLong,
  kNoDailyRow,  ///< of its item: nothing says of which type it is, or who may see it
  kNotNormal,
  kNotPublic,
  kRepeat,
  kAboveMaxLabel
};
constexpr size_t kDrops = 7;

/// Rows left out by reason, `Drop`.
using DropCounts = std::array<int64_t, kDrops>;

/// What is left out of a data set.
struct CleaningRules {
  bool positive = false;
  int64_t max_duration_ms = 0;             ///< 0: off
  std::vector<std::optional<Drop>> items;  ///< [items] why all rows of an item go; empty: none do
  Repeats repeats = Repeats::kKeep;
  float max_label = 0;  ///< 0: off
};

/// Whether a configuration leaves anything out.
bool cleans(const Config::Data& data);

/// Throws: UserError naming the table or column that a filter needs and the data set lacks.
void check_cleaning(const Dataset& dataset, const Config::Data& data);

/// The rules of a configuration for a data set. Throws: UserError as check_cleaning.
CleaningRules cleaning_rules(const Dataset& dataset, const Config::Data& data);

/// A shard with the columns beside it that somebody wants; the others are empty.
struct ShardRows {
  Shard shard;
  std::vector<double> timestamp;  ///< [n]
  Durations durations;            ///< [n]
};

/// Leaves out what the rules say, first by row, then repeats, then by label. A pair that is merged stays in the
/// place of its first row, with that one's source row, timestamp and durations. Users stay, without rows too. Needs
/// `durations` for a largest one.
DropCounts clean(ShardRows& rows, const CleaningRules& rules);

/// Rows by reason, those that there are: {"not_positive": 3, "repeat": 1}.
nlohmann::json to_json(const DropCounts& dropped);
/// The same for people: "3 not_positive, 1 repeat", or "none".
std::string to_text(const DropCounts& dropped);
int64_t total_rows(const DropCounts& dropped);

}  // namespace kt
