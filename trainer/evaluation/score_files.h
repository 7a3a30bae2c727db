#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/dataset/dataset.h"
#include "io/files/files.h"
#include "trainer/evaluation/metrics/metrics.h"

/// Scores, pairs and metrics of users as CSV files, with the ids the source spells.
namespace kt {

/// Dense index of each id. Shapes: ids [n].
std::unordered_map<std::string, int32_t> index_of_ids(const std::vector<std::string>& ids);

/// A field of a CSV line: quoted where it holds a comma, a quote or a line end.
std::string csv_field(const std::string& text);

/// Pairs to evaluate on: a CSV with the columns user_id, video_id and watch_ratio, others ignored. Without the column
/// watch_ratio, or with nothing in it, the pairs have no labels.
/// Throws: UserError naming file and line for ids the data set does not know, labels that are no number or are there
/// for some pairs alone, and a pair that comes twice.
TestTable read_pairs(const std::filesystem::path& path, const IdTables& ids);

/// Writes `user_id,video_id,watch_ratio,score`, a line a pair, numbers in the shortest form that reads back
/// equal, nothing for a label that is not there. Throws: UserError when it cannot be written.
void write_scores(const ResultFile& file, const TestTable& table, std::span<const float> scores,
                  const IdTables& ids);

/// Writes `user_id,pairs` and the metrics by name, a line a user of the table; nothing for a metric that the user does
/// not count for. Throws: UserError when it cannot be written.
void write_user_values(const ResultFile& file, const TestTable& table, const UserValues& users,
                       const IdTables& ids);

}  // namespace kt
