#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "trainer/evaluation/metrics/metrics.h"
#include "trainer/run/problem.h"

/// Results by tenths of the training rows: by the duration of a row's video, by how many rows its user has
/// (activity), and by how many its video has (popularity).
namespace kt {

/// Tenths of rows by a number that they have. Rows of equal numbers are never parted, so a tenth may be empty.
class Tenths {
 public:
  /// Shapes: rows by number.
  explicit Tenths(const std::map<int64_t, int64_t>& rows);
  /// 0 to 9: ten times the share of the rows whose number is smaller.
  int of(int64_t number) const;

 private:
  std::map<int64_t, int> of_number_;  // the tenth of each
};

/// Errors, gauc and ndcg of the pairs of each tenth alone: {duration, activity, popularity}, each a list of
/// {tenth (1 to 10), from, to (the numbers of its test pairs), users, pairs, metrics, chance}. A tenth without pairs is
/// left out, and so is duration where the data have none. The lists of a user are of its pairs in the tenth; labels are
/// the thresholds of `input`, since the others would mean something else there.
/// Shapes: score [pairs of this rank's users]. Collective: all ranks. Throws: UserError for a shard that cannot be read.
nlohmann::json evaluate_groups(const EvaluationInput& input, std::span<const float> score,
                               const Problem& problem, MpiCommunicator& comm, ThreadPool& pool);

/// Such results for people, a line a tenth. Ends in a newline; empty for null.
std::string groups_table(const nlohmann::json& groups);

}  // namespace kt
