#include "trainer/run/cleaning.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "launch/base/errors.h"

namespace kt {
namespace {

constexpr std::array<std::string_view, kDrops> kNames{
    "not_positive", "too_long", "no_daily_row",   "not_normal",
    "not_public",   "repeat",   "above_max_label"};

/// Leaves out the items whose first daily row has another text than `wanted`, and those that have none.
void look_at_items(const DailyTexts& daily, std::string_view wanted, Drop reason,
                   std::vector<std::optional<Drop>>& items) {
  std::vector<bool> seen(items.size(), false);
  for (size_t k = 0; k < daily.item.size(); ++k) {
    const int32_t item = daily.item[k];
    if (seen[item]) continue;
    seen[item] = true;
    if (!items[item] && daily.values[daily.code[k]] != wanted) items[item] = reason;
  }
  for (size_t item = 0; item < items.size(); ++item)
    if (!seen[item]) items[item] = Drop::kNoDailyRow;
}

std::optional<Drop> reason_of_row(const ShardRows& rows, size_t k, const CleaningRules& rules) {
  const Shard& shard = rows.shard;
  if (rules.positive && shard.label[k] <= 0) return Drop::kNotPositive;
  if (rules.max_duration_ms > 0 && rows.durations.video_duration[k] > rules.max_duration_ms)
    return Drop::kTooLong;
  return rules.items.empty() ? std::nullopt : rules.items[shard.item[k]];
}

/// Keeps the first row of each pair, with the label that `repeats` makes of all of them. Sums are in source order.
void merge_repeats(Shard& shard, std::vector<uint32_t>& kept, Repeats repeats) {
  struct Pair {
    double sum = 0;
    int64_t rows = 0;
  };
  const auto key = [&shard](uint32_t k) {
    return static_cast<uint64_t>(shard.user[k]) << 32 | static_cast<uint32_t>(shard.item[k]);
  };
  std::unordered_map<uint64_t, Pair> pairs;
  std::vector<uint32_t> first;
  for (const uint32_t k : kept) {
    Pair& pair = pairs[key(k)];
    if (pair.rows == 0) first.push_back(k);
    pair.sum += shard.label[k];
    ++pair.rows;
  }
  kept = std::move(first);
  if (repeats == Repeats::kFirst) return;
  for (const uint32_t k : kept) {
    const Pair& pair = pairs[key(k)];
    const double label =
        repeats == Repeats::kSum ? pair.sum : pair.sum / static_cast<double>(pair.rows);
    shard.label[k] = static_cast<float>(label);
  }
}

/// The rows of `kept` alone, which ascend, of a column that is there.
template <class T>
void take(std::vector<T>& column, const std::vector<uint32_t>& kept) {
  if (column.empty()) return;
  for (size_t k = 0; k < kept.size(); ++k) column[k] = column[kept[k]];
  column.resize(kept.size());
}

}  // namespace

bool cleans(const Config::Data& data) {
  const Config::Data::Filter& filter = data.filter;
  return filter.positive || filter.max_duration_ms > 0 || filter.video_type != VideoType::kAny ||
         filter.visibility != Visibility::kAny || data.repeats != Repeats::kKeep ||
         filter.max_label > 0;
}

void check_cleaning(const Dataset& dataset, const Config::Data& data) {
  const Config::Data::Filter& filter = data.filter;
  const std::string place = dataset.path().string();
  if (filter.max_duration_ms > 0 && !dataset.has_durations())
    user_error(
        "{}: data.filter.max_duration_ms is {}, but the training rows have no video_duration; "
        "import a folder in the official layout, or set data.filter.max_duration_ms=0",
        place, filter.max_duration_ms);
  const auto needs_daily = [&](std::string_view key, std::string_view value) {
    if (value != "any" && !dataset.has_daily())
      user_error(
          "{}: {} is {}, but the data set has no item_daily_features.csv; import the data with "
          "that file, or set {}=any",
          place, key, value, key);
  };
  needs_daily("data.filter.video_type", name_of(filter.video_type));
  needs_daily("data.filter.visibility", name_of(filter.visibility));
}

CleaningRules cleaning_rules(const Dataset& dataset, const Config::Data& data) {
  check_cleaning(dataset, data);
  const Config::Data::Filter& filter = data.filter;
  CleaningRules rules{.positive = filter.positive,
                      .max_duration_ms = filter.max_duration_ms,
                      .repeats = data.repeats,
                      .max_label = static_cast<float>(filter.max_label)};
  const auto look = [&](const char* column, std::string_view wanted, Drop reason) {
    rules.items.resize(static_cast<size_t>(dataset.items()));
    look_at_items(dataset.read_daily_texts(column), wanted, reason, rules.items);
  };
  if (filter.video_type == VideoType::kNormal) look("video_type", "NORMAL", Drop::kNotNormal);
  if (filter.visibility == Visibility::kPublic) look("visible_status", "public", Drop::kNotPublic);
  return rules;
}

DropCounts clean(ShardRows& rows, const CleaningRules& rules) {
  Shard& shard = rows.shard;
  DropCounts dropped{};
  const auto count = [&](Drop reason, size_t n) {
    dropped[static_cast<size_t>(reason)] += static_cast<int64_t>(n);
  };
  std::vector<uint32_t> kept;  // positions, ascending
  for (size_t k = 0; k < shard.row.size(); ++k) {
    if (const auto reason = reason_of_row(rows, k, rules))
      count(*reason, 1);
    else
      kept.push_back(static_cast<uint32_t>(k));
  }
  if (rules.repeats != Repeats::kKeep) {
    const size_t before = kept.size();
    merge_repeats(shard, kept, rules.repeats);
    count(Drop::kRepeat, before - kept.size());
  }
  if (rules.max_label > 0)
    count(Drop::kAboveMaxLabel,
          std::erase_if(kept, [&](uint32_t k) { return shard.label[k] > rules.max_label; }));
  take(shard.user, kept);
  take(shard.item, kept);
  take(shard.label, kept);
  take(shard.row, kept);
  take(rows.timestamp, kept);
  take(rows.durations.play_duration, kept);
  take(rows.durations.video_duration, kept);
  return dropped;
}

nlohmann::json to_json(const DropCounts& dropped) {
  nlohmann::json out = nlohmann::json::object();
  for (size_t reason = 0; reason < kDrops; ++reason)
    if (dropped[reason] > 0) out[std::string(kNames[reason])] = dropped[reason];
  return out;
}

std::string to_text(const DropCounts& dropped) {
  std::vector<std::string> parts;
  for (size_t reason = 0; reason < kDrops; ++reason)
    if (dropped[reason] > 0) parts.push_back(fmt::format("{} {}", dropped[reason], kNames[reason]));
  return parts.empty() ? "none" : fmt::format("{}", fmt::join(parts, ", "));
}

int64_t total_rows(const DropCounts& dropped) {
  return std::accumulate(dropped.begin(), dropped.end(), int64_t{0});
}

}  // namespace kt
