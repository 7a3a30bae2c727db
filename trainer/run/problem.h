#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "io/config/config.h"
#include "io/dataset/dataset.h"
#include "launch/collectives/mpi_communicator.h"
#include "models/graph/engine.h"
#include "models/systems/registry.h"
#include "sharding/parameters.h"
#include "sharding/sparse_rows.h"
#include "trainer/features/columns.h"
#include "trainer/features/play_times.h"
#include "trainer/steps/step_columns.h"

namespace kt {

/// What is known beside ids and labels, where the system asks for it. Shapes: users [users of this rank's shards, ..],
/// items [items, ..], train_rows [own shards][training samples, ..].
struct ProblemColumns {
  std::vector<float> users, items;
  std::vector<std::vector<float>> train_rows;
  std::vector<std::vector<float>> targets;  ///< where they are not of labels. Shapes: as train_rows
  std::optional<RowColumns>
      of_pair;  ///< of any user and item; none: a row has no columns of its own

  /// Of rows that are none of the training rows. Shapes: user_rows of the user tables, of_items [n]; result [n, columns
  /// of a row].
  std::vector<float> of_pairs(std::span<const int32_t> user_rows,
                              std::span<const int32_t> of_items) const;
};

/// What a configuration and a data set make together: the system and its inputs. The same on every rank, less what is said
/// to be of its users.
struct Problem {
  Config config;
  Dataset dataset;
  std::vector<int64_t> users_per_shard;  ///< [V]
  ShardUsers users;                      ///< of this rank's shards; `row` is theirs in user tables
  System system;
  std::unique_ptr<Engine> engine;  ///< of the system
  std::vector<Column> described;   ///< what the system reads beside ids and labels
  std::vector<ArraySpec>
      kept;                ///< arrays that are fitted on the training rows (trainer/run/fitting.h)
  ProblemColumns columns;  ///< of `described` once they are fitted, or read from a checkpoint
  std::optional<PlayTimes> play_times;  ///< likewise, where the system predicts them
  double target_mean = 0;  ///< of the training rows, where initial weights take it
  // Where the system reads histories (trainer/run/history.h), or its tables are propagated over them.
  std::optional<SparseRows> history;   ///< of this rank's users
  std::vector<int32_t> history_items;  ///< that have training rows, ascending

  /// Rows of user tables that are of a rank's users.
  Range user_rows(World world) const;
  /// The row of a user, by its dense index; -1: its shard is another rank's.
  int64_t user_row(int32_t user) const;
};

/// Whether the system reads the daily table's content features.
bool reads_content(const Config& config);

/// The columns that the system reads beside ids and labels.
std::vector<Column> columns_of(const Config& config);

/// What a system is made from, as if every user and video had training rows. `codes` counts those of a side's columns.
SystemInputs system_inputs(const Config& config, std::span<const Column> columns, int64_t users,
                           int64_t items,
                           const std::function<std::vector<int64_t>(Side)>& codes);
SystemInputs system_inputs(const Config& config, std::span<const Column> columns,
                           const Dataset& dataset);

/// What steps and predictors know of this problem.
StepColumns step_columns(const Problem& problem);

/// Opens the data set and builds the model. Collective: all ranks. Throws: UserError, the same on all.
Problem open_problem(const Config& config, MpiCommunicator& comm);

}  // namespace kt
