#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "io/arrays/file_array.h"
#include "launch/collectives/mpi_communicator.h"
#include "trainer/run/stored_run.h"

namespace kt {

/// Everything that scores with a stored run (docs/export.md): its arrays, and a document that says how. Rows of users are
/// in block order, as user_id has them; weights are borrowed, not copied.
class RunExport {
 public:
  /// Borrows the run. One rank. Throws: UserError for a data set that cannot be read.
  RunExport(StoredRun& run, MpiCommunicator& comm);

  /// Names: those of the parameters (trainer/features/columns.h has `columns.*`), columns.item of content features,
  /// user_id and video_id as .bytes [n], .begin [rows + 1], and of systems that read histories history.begin [users + 1],
  /// history.item, history.value [n].
  const std::vector<FileArray>& arrays() const { return arrays_; }
  /// {system, checkpoint, step, weights_hash, dataset_hash, config, graph, score, unit, columns}.
  const nlohmann::json& document() const { return document_; }

 private:
  struct Texts {
    std::vector<uint8_t> bytes;
    std::vector<int64_t> begin = {0};
    void add(const std::string& text);
  };
  void add_ids();
  void add_history(MpiCommunicator& comm);

  StoredRun& run_;
  Texts user_id_, video_id_;
  SparseRows history_;
  std::vector<int32_t> column_of_video_;  // of history weights; -1: none
  std::vector<FileArray> arrays_;
  nlohmann::json document_;
};

}  // namespace kt
