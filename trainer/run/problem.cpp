#include "trainer/run/problem.h"

#include <algorithm>
#include <numeric>

#include "launch/base/errors.h"
#include "models/features/content_features.h"
#include "models/graph/dot_form.h"
#include "sharding/plan.h"
#include "trainer/features/side_columns.h"
#include "trainer/run/cleaning.h"
#include "trainer/run/engine_choice.h"
#include "trainer/run/fitting.h"
#include "trainer/run/same_on_all.h"

namespace kt {
namespace {

std::vector<float> load_item_features(const Dataset& dataset, const Config& config) {
  const DailyFeatures daily = dataset.read_daily(content_columns());
  DailyRows rows{.item = daily.item, .date = daily.date, .columns = {}};
  for (const std::vector<double>& column : daily.columns) rows.columns.push_back(column);
  return content_features(rows, dataset.items(), config.data.features.until.yyyymmdd,
                          config.data.features.missing == MissingValue::kMedian
                              ? MissingPolicy::kMedian
                              : MissingPolicy::kZero);
}

}  // namespace

namespace {

SystemInputs inputs_of(const Problem& problem) {
  SystemInputs inputs = system_inputs(problem.config, problem.described, problem.dataset);
  const TrainedCounts trained = problem.dataset.count_trained();
  inputs.users_with_rows = trained.users;
  inputs.items_with_rows = trained.items;
  return inputs;
}

std::vector<int32_t> items_with_rows(const Dataset& dataset) {
  const std::vector<int64_t> rows = dataset.read_item_rows();
  std::vector<int32_t> items;
  for (int32_t item = 0; item < std::ssize(rows); ++item)
    if (rows[item] > 0) items.push_back(item);
  return items;
}

/// Throws: UserError for a target that cannot be made, or that its loss does not fit.
void check_objective(const Objective& objective) {
  if (objective.target == TargetKind::kRange && objective.clip == 0)
    user_error(
        "model.target.kind: got range with data.target.clip=0, expected an end of the range; set "
        "data.target.clip, as to 5");
  if (objective.target == TargetKind::kRange && objective.low >= objective.high)
    user_error("model.target.low: got {}, expected less than model.target.high={}", objective.low,
               objective.high);
  if (objective.loss == Loss::kBce && objective.target != TargetKind::kPositive)
    user_error(
        "model.loss: got bce, which is of labels that are 0 or 1; set model.target.kind=positive "
        "and model.target.threshold");
}

/// Throws: UserError for an objective that ranks what it cannot.
void check_ranking(const System& system) {
  const Objective& objective = system.objective;
  if (!objective.ranks()) return;
  const bool rows = objective.negatives == NegativeKind::kRows;
  if (objective.exclude_block && objective.negatives != NegativeKind::kUniform &&
      objective.negatives != NegativeKind::kPopularity)
    user_error(
        "model.negatives.exclude_block: got true, expected false where negatives are not drawn "
        "from all videos; or set model.negatives.kind=uniform or popularity");
  if (objective.ranks_lists() && !rows)
    user_error(
        "model.loss: got the loss of a list, expected bpr or softmax for drawn negatives; set "
        "model.negatives.kind=rows, whose lists are of a user's rows");
  if (rows && objective.loss == Loss::kSoftmax)
    user_error(
        "model.negatives.kind: got rows with model.loss=softmax, expected pairs or lists of "
        "rows; set model.loss=bpr or lambdarank, or model.negatives.kind=shown");
  if (objective.target != TargetKind::kPositive && !(rows && objective.target == TargetKind::kRaw))
    user_error(
        "model.target.kind: a loss that ranks needs to know which rows are positive; set "
        "model.target.kind=positive and model.target.threshold, or model.negatives.kind=rows and "
        "model.target.kind=raw");
  if (objective.negatives == NegativeKind::kAll && objective.loss != Loss::kSoftmax)
    user_error(
        "model.negatives.kind: got all with model.loss=bpr, which is of pairs; set "
        "model.loss=softmax, or model.negatives.kind=uniform");
  if (objective.is_full_softmax() && !dot_form(system.graph))
    user_error(
        "model.negatives.kind: got all, which takes a model whose output is a dot of a user and a "
        "video, without dropout and batch norms; set model.dropout=0, or draw negatives");
  if (objective.is_full_softmax() && system.propagation)
    user_error(
        "model.negatives.kind: got all, which takes embeddings that are trained themselves, not "
        "propagated ones; draw negatives, or choose model.name=softmax");
  if (system.graph.column_count(Side::kRow) > 0 ||
      std::ranges::any_of(system.graph.layers(),
                          [](const Layer& layer) { return layer.kind == LayerKind::kBatchNorm; }))
    user_error(
        "model.loss: got a loss that ranks, but the model reads columns of rows or "
        "has batch norms; choose squared, bce or huber");
}

/// Throws: UserError where rows have no play times, or where labels are made of them that these do not follow.
void check_play_times(const Problem& problem) {
  const Config& config = problem.config;
  if (config.data.repeats == Repeats::kMean || config.data.repeats == Repeats::kSum)
    user_error(
        "data.repeats: got {} with model.name={}, whose target is the play time of single rows; "
        "set it to keep or first",
        name_of(config.data.repeats), config.model.name);
  if (!problem.dataset.has_durations())
    user_error(
        "{}: model.name is {}, but the training rows have no play_duration; import a folder in the "
        "official layout, or choose another system",
        config.data.path, config.model.name);
}

System make_system(const Problem& problem) {
  const SystemEntry& entry = find_system(problem.config.model.name);
  System system = entry.make(problem.config.model.options, inputs_of(problem));
  system.objective.clip = problem.config.data.target.clip;
  check_objective(system.objective);
  check_ranking(system);
  if (system.watch_time) check_play_times(problem);
  if (system.objective.is_full_softmax() && problem.config.model.engine == EngineName::kTorch)
    user_error(
        "model.engine: got torch with model.negatives.kind=all, expected fused, which has all "
        "videos at once; set model.engine=auto");
  return system;
}

}  // namespace

bool reads_content(const Config& config) {
  const SystemEntry& entry = find_system(config.model.name);
  return entry.content && entry.content(config.model.options);
}

std::vector<Column> columns_of(const Config& config) {
  const SystemEntry& entry = find_system(config.model.name);
  return entry.columns ? entry.columns(config.model.options) : std::vector<Column>();
}

SystemInputs system_inputs(const Config& config, std::span<const Column> columns, int64_t users,
                           int64_t items,
                           const std::function<std::vector<int64_t>(Side)>& codes) {
  SystemInputs inputs{
      .users = users, .items = items, .users_with_rows = users, .items_with_rows = items};
  for (const Side side : {Side::kUser, Side::kItem, Side::kRow}) {
    const auto k = static_cast<size_t>(side);
    inputs.columns[k] = width_of(columns, side);
    if (side != Side::kRow) inputs.codes[k] = codes(side);
  }
  if (reads_content(config)) inputs.columns[static_cast<size_t>(Side::kItem)] = kContentFeatures;
  return inputs;
}

SystemInputs system_inputs(const Config& config, std::span<const Column> columns,
                           const Dataset& dataset) {
  return system_inputs(config, columns, dataset.users(), dataset.items(),
                       [&](Side side) { return code_counts(columns, side, dataset); });
}

std::vector<float> ProblemColumns::of_pairs(std::span<const int32_t> user_rows,
                                            std::span<const int32_t> of_items) const {
  if (!of_pair) return {};
  const int64_t width = of_pair->width();
  std::vector<float> columns(user_rows.size() * width);
  for (size_t k = 0; k < user_rows.size(); ++k)
    of_pair->of(user_rows[k], of_items[k], std::span(columns).subspan(k * width, width));
  return columns;
}

Range Problem::user_rows(World world) const {
  const Range shards = shards_of_rank(std::ssize(users_per_shard), world);
  const auto first = users_per_shard.begin();
  return {std::accumulate(first, first + shards.begin, int64_t{0}),
          std::accumulate(first, first + shards.end, int64_t{0})};
}

int64_t Problem::user_row(int32_t user) const {
  const std::optional<size_t> found = users.find(user);
  return found ? users.row[*found] : -1;
}

StepColumns step_columns(const Problem& problem) {
  const ProblemColumns& columns = problem.columns;
  StepColumns result{
      .users = columns.users.data(), .items = columns.items.data(), .rows = {}, .targets = {}};
  for (const std::vector<float>& rows : columns.train_rows) result.rows.push_back(rows.data());
  for (const std::vector<float>& rows : columns.targets) result.targets.push_back(rows.data());
  return result;
}

Problem open_problem(const Config& config, MpiCommunicator& comm) {
  Problem problem{.config = config};
  same_on_all(comm, [&] {
    const EngineOptions engine = engine_options(config);  // that this CPU has what is asked for
    problem.dataset = Dataset::open(config.data.path);
    check_world(problem.dataset.shards(), comm.world());
    check_cleaning(problem.dataset, config.data);
    if (reads_content(config)) {
      if (!problem.dataset.has_daily())
        user_error(
            "{}: model.content is daily, but the data set has no item_daily_features.csv; import "
            "the data with that file, or set model.content=none",
            config.data.path);
      problem.columns.items = load_item_features(problem.dataset, config);
    }
    const Range shards = shards_of_rank(problem.dataset.shards(), comm.world());
    problem.users = problem.dataset.read_users(shards.begin, shards.end);
    problem.described = columns_of(config);
    problem.system = make_system(problem);
    if (problem.system.gram || problem.system.encoder)
      problem.history_items = items_with_rows(problem.dataset);
    problem.kept = kept_arrays(problem);
    problem.engine = make_engine(problem.system, engine);
    return Facts{{"hash of the data set", problem.dataset.hash()}};
  });
  problem.users_per_shard = problem.dataset.shard_users();
  return problem;
}

}  // namespace kt
