#include "trainer/exports/run_export.h"

#include "io/config/writers.h"
#include "trainer/exports/columns_json.h"
#include "trainer/exports/graph_json.h"
#include "trainer/run/history.h"

namespace kt {

RunExport::RunExport(StoredRun& run, MpiCommunicator& comm) : run_(run) {
  const Problem& problem = run.problem;
  for (const ParameterArray& array : run.parameters.arrays)
    arrays_.push_back(file_array(array.spec.name, {array.spec.rows, array.spec.cols},
                                 std::span<const float>(array.value)));
  if (reads_content(problem.config))
    arrays_.push_back(file_array(
        "columns.item", {problem.dataset.items(), problem.system.graph.column_count(Side::kItem)},
        std::span<const float>(problem.columns.items)));
  add_ids();
  if (problem.system.reads_history()) add_history(comm);
  const Objective& objective = problem.system.objective;
  document_ = {{"system", problem.config.model.name},
               {"checkpoint", run.checkpoint},
               {"step", run.step},
               {"weights_hash", run.parameters.weights_hash(comm)},
               {"dataset_hash", problem.dataset.hash()},
               {"config", to_json(problem.config)},
               {"graph", graph_json(problem)},
               {"score", score_json(objective)},
               {"unit", objective.unit() == ScoreUnit::kLabel ? "label" : "order"},
               {"columns", columns_json(problem)}};
}

void RunExport::Texts::add(const std::string& text) {
  bytes.insert(bytes.end(), text.begin(), text.end());
  begin.push_back(std::ssize(bytes));
}

void RunExport::add_ids() {
  const IdTables ids = run_.problem.dataset.read_ids();
  const ShardUsers& users = run_.problem.users;
  std::vector<int32_t> user_of_row(ids.user_id.size());
  for (int64_t k = 0; k < users.size(); ++k) user_of_row[users.row[k]] = users.user[k];
  for (const int32_t user : user_of_row) user_id_.add(ids.user_id[user]);
  for (const std::string& id : ids.item_id) video_id_.add(id);
  const auto put = [&](const std::string& name, const Texts& texts) {
    arrays_.push_back(file_array(name + ".bytes", {std::ssize(texts.bytes)},
                                 std::span<const uint8_t>(texts.bytes)));
    arrays_.push_back(file_array(name + ".begin", {std::ssize(texts.begin)},
                                 std::span<const int64_t>(texts.begin)));
  };
  put("user_id", user_id_);
  put("video_id", video_id_);
}

/// As the system reads them: what an encoder's rows are multiplied by, else targets without zeros.
void RunExport::add_history(MpiCommunicator& comm) {
  const Problem& problem = run_.problem;
  if (const auto& encoder = problem.system.encoder) {
    history_ = encoder_targets(problem, run_.parameters, comm);
    for (float& value : history_.value) value = encoder->input_of(value);
  } else {
    history_ = history_matrix(problem, run_.parameters, comm);
    for (int32_t& item : history_.item) item = problem.history_items[item];
    column_of_video_.assign(problem.dataset.items(), -1);
    int32_t next = 0;
    for (const int32_t item : problem.history_items) column_of_video_[item] = next++;
    arrays_.push_back(file_array(problem.system.history_weights->name + ".column",
                                 {problem.dataset.items()},
                                 std::span<const int32_t>(column_of_video_)));
  }
  const auto size = std::ssize(history_.item);
  arrays_.push_back(file_array("history.begin", {std::ssize(history_.begin)},
                               std::span<const int64_t>(history_.begin)));
  arrays_.push_back(file_array("history.item", {size}, std::span<const int32_t>(history_.item)));
  arrays_.push_back(file_array("history.value", {size}, std::span<const float>(history_.value)));
}

}  // namespace kt
