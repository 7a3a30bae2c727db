#include "trainer/run/train.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "io/config/identity.h"
#include "io/config/writers.h"
#include "io/files/json_text.h"
#include "io/run/run_folder.h"
#include "io/run/tensorboard.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/base/progress.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/agree.h"
#include "launch/process/cpus.h"
#include "launch/process/signals.h"
#include "launch/process/watchdog.h"
#include "sharding/gather_shards.h"
#include "sharding/weight_histograms.h"
#include "trainer/evaluation/evaluation_table.h"
#include "trainer/evaluation/evaluator.h"
#include "trainer/evaluation/validator.h"
#include "trainer/run/checkpointing.h"
#include "trainer/run/engine_choice.h"
#include "trainer/run/fitting.h"
#include "trainer/run/history.h"
#include "trainer/run/lr_schedule.h"
#include "trainer/run/problem.h"
#include "trainer/run/progress_state.h"
#include "trainer/run/requests.h"
#include "trainer/run/run_facts.h"
#include "trainer/run/share.h"
#include "trainer/run/weights.h"
#include "trainer/steps/make_steps.h"
#include "trainer/steps/negative_sampler.h"
#include "trainer/steps/tested_rows.h"

namespace kt {
namespace {

constexpr const char* kEarlyStop = "train.early_stop.metric";
constexpr const char* kBest = "checkpoint.best";

/// Units: seconds since the epoch.
double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

class TrainingRun {
 public:
  TrainingRun(const Config& config, MpiCommunicator& comm, Devices* devices)
      : config_(config),
        comm_(comm),
        devices_(devices),
        pool_(static_cast<int>(config.parallel.threads)),
        problem_(open_problem(config, comm)),
        parameters_(make_parameters(problem_, comm.world())),
        identity_(identity(config, problem_.dataset.hash())) {
    if (devices) expect_device_form(problem_);
  }

  nlohmann::json run();

 private:
  bool is_first() const { return comm_.world().rank == 0; }
  int64_t epoch() const { return progress_.step / schedule_->steps(); }
  bool at_epoch_end() const {
    return progress_.step > 0 && progress_.step % schedule_->steps() == 0;
  }
  bool complete() const { return progress_.step >= total_steps_ || progress_.stopped_early; }
  bool patience_is_over() const {
    const auto& early = config_.train.early_stop;
    return early.metric != SelectionMetric::kNone && at_epoch_end() &&
           progress_.step < total_steps_ && progress_.early_stop.epochs_since >= early.patience;
  }

  void claim_folder();
  void load_data();
  std::vector<int64_t> keep_ranked_rows(int64_t all);
  void check_selection();
  void resume_or_initialize();
  void resume(Checkpoint& checkpoint);
  void check_identity(const Checkpoint& checkpoint);
  void restore(Checkpoint& checkpoint);
  void begin_interval();
  nlohmann::json hyper_parameters() const;
  void cut_records(int64_t last_step);
  void train_steps();
  void begin_step();
  bool settle();
  bool bad_step(const StepOutcome& outcome);
  bool looks_for_outliers() const {
    return config_.train.outliers.loss > 0 || config_.train.outliers.gradient_norm > 0;
  }
  void rewind(const std::string& fault);
  double rate_of(int64_t step) const;
  int64_t samples_until(int64_t step) const;
  std::string loss_text() const;
  void end_epoch();
  void lower_rate_on_plateau(const ValidationResult& validation);
  void report_interval();
  void save();
  nlohmann::json stored_result();
  void end_training();
  nlohmann::json final_evaluation();
  nlohmann::json evaluate_now(const std::string& checkpoint);
  std::unique_ptr<Predictor> make_predictor();
  nlohmann::json result(const std::string& weights_hash, nlohmann::json evaluation);
  void report_seconds();
  void record(const nlohmann::json& line);
  void record_weights();

  const Config& config_;
  MpiCommunicator& comm_;
  Devices* const devices_;
  ThreadPool pool_;
  Problem problem_;
  Parameters parameters_;
  nlohmann::json identity_;
  std::vector<ShardSamples> samples_;
  std::optional<NegativeSampler> negatives_;  // of an objective that ranks
  DropCounts dropped_{};
  int64_t validation_rows_ = 0;
  std::optional<Schedule> schedule_;
  int64_t total_steps_ = 0;
  const std::vector<BinaryLabel> labels_ = binary_labels(config_.evaluate.labels);
  std::optional<Validator> validator_;  // made by the first validation
  TestTable test_;                      // read by the first evaluation
  std::optional<Evaluator> evaluator_;  // of `test_`
  ProgressState progress_;
  int64_t saved_step_ = -1;  // of the newest checkpoint
  std::optional<Requests> requests_;
  std::unique_ptr<Steps> steps_;
  bool proven_ = false;  // whether a step from the weights of `saved_step_` has been looked at
  std::vector<int64_t> begun_;  // steps whose outcomes are not taken yet
  StepLimits limits_;           // of the last that was begun

  // This invocation's time in the loop.
  Clock::time_point train_start_;
  Stopwatch validation_time_, checkpoint_time_, request_time_;
  nlohmann::json seconds_;

  // Rank 0 alone.
  std::optional<RunFolder> folder_;
  std::optional<EventFile> events_;

  Clock::time_point interval_start_;  // of `progress_.interval`
  Clock::time_point tick_;            // up to where wall_seconds and epoch_seconds are counted
};

/// Whether the evaluation that `stored`, a configuration, asked for is the one that `now` does.
bool same_evaluation(const nlohmann::json& stored, const nlohmann::json& now) {
  const auto same = [&](const char* key) {
    const nlohmann::json::json_pointer place(key);
    return stored.value(place, nlohmann::json()) == now.value(place, nlohmann::json());
  };
  return same("/evaluate/k") && same("/evaluate/labels") && same("/evaluate/bootstrap") &&
         same("/evaluate/candidates") && same("/evaluate/groups") && same("/evaluate/play_time") &&
         same("/evaluate/checkpoint") &&
         (now.at("evaluate").at("checkpoint") == "last" || same("/checkpoint/best"));
}

/// Whether it is an evaluation from before there were intervals, which are asked for.
bool lacks_intervals(const nlohmann::json& evaluation, const Config& config) {
  return config.evaluate.bootstrap > 0 && !evaluation.is_null() &&
         !evaluation.contains("intervals");
}

nlohmann::json TrainingRun::run() {
  claim_folder();
  load_data();
  resume_or_initialize();
  nlohmann::json stored;
  if (complete()) {
    // Nothing left to train: show what there is, or evaluate if that is not what is asked for.
    log_info("{}: this run is complete at step {}; nothing to train{}", config_.run.dir,
             progress_.step,
             progress_.stopped_early
                 ? fmt::format(": it stopped early, as train.early_stop.patience={} says",
                               config_.train.early_stop.patience)
                 : "");
    stored = stored_result();
    if (!stored.is_null() &&
        same_evaluation(with_defaults(stored.at("config"), config_), to_json(config_)) &&
        !lacks_intervals(stored.at("evaluation"), config_)) {
      if (is_first() && !stored["evaluation"].is_null())
        print_evaluation(problem_, stored["evaluation"]);
      solo(comm_, 0, "run folder", [&] { events_->end_session(now()); });
      stored["already_complete"] = true;
      return stored;
    }
    // The run may have ended between this line and its result.
    solo(comm_, 0, "run folder", [&] { folder_->drop_metrics("evaluation", progress_.step); });
  } else {
    check_selection();
    train_steps();
  }
  end_training();
  const std::string weights_hash = parameters_.weights_hash(comm_);
  nlohmann::json json = result(weights_hash, final_evaluation());
  // Of another evaluation of the same weights: what is told of their training stays.
  if (!stored.is_null()) {
    for (const char* key : {"config", "evaluation"}) stored[key] = std::move(json[key]);
    json = std::move(stored);
  }
  solo(comm_, 0, "result", [&] {
    json = folder_->write_result(std::move(json));
    events_->end_session(now());
  });
  return json;
}

/// What result.json says of these very weights; null where it says nothing, or is of an earlier end of the run.
nlohmann::json TrainingRun::stored_result() {
  std::string text;
  solo(comm_, 0, "stored result", [&] {
    try {
      if (const auto json = read_result(config_.run.dir)) text = json->dump();
    } catch (const UserError& error) {
      log_warning("{}; it is made again from the checkpoint", error.what());
    }
  });
  text = share_text(text, 0, comm_);
  const std::string hash = parameters_.weights_hash(comm_);
  if (text.empty()) return nullptr;
  nlohmann::json json = nlohmann::json::parse(text);
  const bool of_these = json.at("weights_hash") == hash && json.at("steps") == progress_.step &&
                        json.at("stopped_early") == progress_.stopped_early;
  return of_these ? json : nullptr;
}

void TrainingRun::claim_folder() {
  solo(comm_, 0, "run folder", [&] {
    folder_.emplace(config_.run.dir);
    folder_->claim(config_, identity_);
    log_to_file(folder_->log_path());
  });
  requests_.emplace(config_, config_.run.dir);
}

void TrainingRun::load_data() {
  const auto start = Clock::now();
  const Dataset& dataset = problem_.dataset;
  samples_ = load_samples(dataset, config_, parameters_.shards(), comm_);
  dropped_ = sum_dropped(samples_, comm_);
  const int64_t rows = dataset.train_rows() - total_rows(dropped_);  // that cleaning leaves
  if (rows == 0)
    throw AgreedError(
        fmt::format("{}: data.filter and data.repeats leave none of {} training rows ({}); set the "
                    "filters wider or off",
                    config_.data.path, dataset.train_rows(), to_text(dropped_)));
  std::vector<int64_t> counts = gather_train_counts(samples_, dataset.shards(), comm_);
  const int64_t all = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  if (all == 0)
    throw AgreedError(
        fmt::format("{}: no training rows are left after the split; lower "
                    "data.validation.fraction",
                    config_.data.path));
  validation_rows_ = rows - all;
  // Of all rows, those too that an objective that ranks leaves out.
  if (problem_.system.propagation)
    problem_.history = history_of(samples_, problem_.system.objective, pool_);
  if (problem_.system.objective.ranks()) counts = keep_ranked_rows(all);
  const bool of_users = problem_.system.encoder.has_value();  // samples are users
  if (of_users) counts = gather_shards<int64_t>(comm_, users_with_rows(samples_), dataset.shards());
  const int64_t steps_of_all = problem_.system.steps_of_all_rows();
  const int64_t batch =
      steps_of_all > 0 ? (all + steps_of_all - 1) / steps_of_all : config_.train.global_batch;
  schedule_.emplace(counts, batch);
  total_steps_ = steps_of_all == 1 ? 1 : config_.train.epochs * schedule_->steps();
  if (config_.train.max_steps > 0) total_steps_ = std::min(total_steps_, config_.train.max_steps);

  fit(problem_, parameters_, samples_, comm_, pool_);
  if (cleans(config_.data))
    log_info("data: left out of {} rows at load (data.filter, data.repeats): {}",
             dataset.train_rows(), to_text(dropped_));
  log_info(
      "data: {} training rows and {} validation rows of {} users and {} videos, {} shards, "
      "read in {:.1f} s",
      of_users ? all : schedule_->samples(), validation_rows_, dataset.users(), dataset.items(),
      dataset.shards(), seconds_since(start));
  log_info("model: {}, {} parameters; {} steps of {} {} an epoch, {} in all", config_.model.name,
           parameters_.count(), schedule_->steps(),
           steps_of_all > 0 ? "all" : std::to_string(batch), of_users ? "users" : "rows",
           total_steps_);
  const auto largest = *std::max_element(counts.begin(), counts.end());
  const double share = static_cast<double>(largest) / static_cast<double>(schedule_->samples());
  if (is_first() && share * comm_.world().size > 1.5)
    log_warning(
        "the largest shard has {:.1f} % of the rows, so {} ranks are at most {:.1f} times as "
        "fast as one",
        100 * share, comm_.world().size, 1 / share);
  for (int rank = 0; is_first() && rank < comm_.world().size; ++rank) {
    const Range own = shards_of_rank(dataset.shards(), {rank, comm_.world().size});
    if (std::all_of(counts.begin() + own.begin, counts.begin() + own.end,
                    [](int64_t n) { return n == 0; }))
      log_warning("rank {} has no training rows: its shards are empty", rank);
  }
}

/// Keeps of the `all` training rows those that an objective that ranks trains on. Returns how many of each shard.
std::vector<int64_t> TrainingRun::keep_ranked_rows(int64_t all) {
  const Dataset& dataset = problem_.dataset;
  ExcludedBlock excluded;
  if (problem_.system.objective.exclude_block) {
    const TestedRows tested = tested_rows(problem_, comm_);
    excluded.users.resize(dataset.users(), 0);
    for (int64_t k = 0; k < problem_.users.size(); ++k)
      excluded.users[problem_.users.user[k]] = tested.users[problem_.users.row[k]];
    excluded.items = tested.videos;
  }
  negatives_.emplace(problem_.system.objective, samples_, dataset.items(),
                     static_cast<uint64_t>(config_.train.seed), comm_, pool_, excluded);
  for (int64_t shard = 0; shard < std::ssize(samples_); ++shard)
    std::erase_if(samples_[shard].train,
                  [&](const Sample& sample) { return !negatives_->trains(shard, sample); });
  std::vector<int64_t> counts = gather_train_counts(samples_, dataset.shards(), comm_);
  const int64_t kept = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const NegativeKind negatives = problem_.system.objective.negatives;
  const char* const what = negatives == NegativeKind::kRows  ? "another row of their user"
                           : negatives == NegativeKind::kAll ? "a target of 1"
                                                             : "a target of 1 and a video to draw "
                                                               "beside it";
  if (kept == 0)
    throw AgreedError(fmt::format(
        "{}: none of {} training rows has {}; lower model.target.threshold or choose other "
        "model.negatives.kind",
        config_.data.path, all, what));
  log_info("data: {} of {} training rows have {}: they train, the others do not", kept, all, what);
  return counts;
}

/// Predicts nothing: what labels alone decide about metrics shows with any scores.
class ZeroPredictor final : public Predictor {
 public:
  void predict(const Pairs&, ThreadPool&, std::span<float> out) const override {
    std::ranges::fill(out, 0.f);
  }
};

/// Refuses to train for a metric that no epoch will have.
void TrainingRun::check_selection() {
  const SelectionMetric best = config_.checkpoint.best, early = config_.train.early_stop.metric;
  const bool evaluates_best = config_.evaluate.checkpoint == EvaluatedCheckpoint::kBest;
  if (evaluates_best && progress_.best.step < 0 && total_steps_ < schedule_->steps())
    throw AgreedError(fmt::format(
        "evaluate.checkpoint=best: the run ends at step {}, before its first epoch does "
        "at step {}, so no checkpoint will be the best; raise train.max_steps or set "
        "evaluate.checkpoint=last",
        total_steps_, schedule_->steps()));

  ValidationResult result{.rows = validation_rows_};
  const SelectionMetric plateau = config_.train.plateau.metric;
  const auto of_order = [](SelectionMetric metric) {
    return metric != SelectionMetric::kNone && !is_error(metric);
  };
  if (validation_rows_ > 0 && (of_order(best) || of_order(early) || of_order(plateau))) {
    const Phase phase("validation");
    validator_.emplace(samples_, labels_, comm_, pool_);
    result = validator_->validate(ZeroPredictor());
  }
  const auto check = [&](const char* key, SelectionMetric metric) {
    if (metric == SelectionMetric::kNone) return;
    if (is_error(metric) && problem_.system.objective.unit() == ScoreUnit::kOrder)
      throw AgreedError(fmt::format(
          "{}={}: the scores of {} are an order alone, which has no errors; set {}=gauc or none",
          key, name_of(metric), config_.model.name, key));
    if (value_of(result, metric)) return;
    const BinaryLabel* const label = highest_threshold(labels_);
    const std::string why =
        validation_rows_ == 0
            ? fmt::format("data.validation.fraction={} leaves none of {} rows for it",
                          config_.data.validation.fraction, schedule_->samples())
        : metric == SelectionMetric::kGauc && label == nullptr
            ? std::string("evaluate.labels has none of the form ratio>=X")
        : metric == SelectionMetric::kGauc
            ? fmt::format("no user has held-out labels on both sides of {}", label->threshold)
            : std::string("all held-out labels are equal");
    // A small table is no reason to refuse what nobody may have asked for.
    if (validation_rows_ == 0 && key == kBest && !evaluates_best) {
      if (is_first())
        log_warning("{}={}: {}; no checkpoint will be the best", key, name_of(metric), why);
      return;
    }
    throw AgreedError(
        fmt::format("{}={}: validation {} cannot be measured: {}; {} or set {}=none", key,
                    name_of(metric), name_of(metric), why,
                    validation_rows_ == 0 ? "raise the fraction" : "choose another metric", key));
  };
  check("train.plateau.metric", plateau);
  check(kEarlyStop, early);
  check(kBest, best);
}

void TrainingRun::resume_or_initialize() {
  const std::string& resumed = config_.checkpoint.resume;
  using enum CheckpointChoice::Which;
  std::optional<Checkpoint> checkpoint;
  if (resumed == "auto")
    checkpoint = find_checkpoint(config_.run.dir, {}, comm_);
  else if (resumed != "never")
    checkpoint = find_checkpoint(config_.run.dir, {.which = kPathOrNewer, .path = resumed}, comm_);
  if (checkpoint)
    resume(*checkpoint);
  else
    initialize(parameters_, problem_);
  cut_records(checkpoint ? progress_.step : -1);
}

/// Goes on from a checkpoint. Afterwards it is in the run's own folder, and the best one is too.
void TrainingRun::resume(Checkpoint& checkpoint) {
  check_identity(checkpoint);
  const auto save_here = [&] {
    save_checkpoint(config_.run.dir, parameters_, progress_, identity_, config_.checkpoint.keep,
                    comm_);
  };
  const auto beside = [&](int64_t step) {
    return checkpoint.path().parent_path() / checkpoint_path({}, step).filename();
  };
  bool save = checkpoint.path() != checkpoint_path(config_.run.dir, checkpoint.step());
  ProgressState::Best best;
  agree(comm_, [&] { best = progress_of(checkpoint).best; });
  std::string lost;  // why there is no best one any more
  const std::string_view metric = name_of(config_.checkpoint.best);
  if (best.step >= 0 && !best.metric.empty() && best.metric != metric) {
    lost = fmt::format("it was chosen by {}, and checkpoint.best is {}", best.metric, metric);
  } else if (best.step >= 0 && best.step != checkpoint.step()) {
    std::optional<Checkpoint> found;
    try {
      found = find_checkpoint(config_.run.dir,
                              {.which = CheckpointChoice::Which::kPath, .path = beside(best.step)},
                              comm_);
      check_identity(*found);
    } catch (const AgreedError& error) {
      lost = error.what();
    }
    if (save && lost.empty()) {
      restore(*found);
      save_here();
    }
  }
  restore(checkpoint);
  if (save) progress_.health.good_checkpoint = -1;  // stayed where it was
  if (!lost.empty()) {
    if (is_first())
      log_warning("the best checkpoint so far, of step {}, counts no more: {}; another begins",
                  best.step, lost);
    progress_.best = {};
    save = true;
  }
  if (save) save_here();
  solo(comm_, 0, "checkpoints", [&] { settle_checkpoints(config_.run.dir, progress_.step); });
  progress_.resumed_from.push_back(progress_.step);
  log_info("resumed {} at step {}", checkpoint.path().string(), progress_.step);
}

void TrainingRun::check_identity(const Checkpoint& checkpoint) {
  agree(comm_, [&] {
    const auto differences = identity_differences(identity_of(checkpoint), identity_, config_);
    if (!differences.empty())
      user_error(
          "{}: the checkpoint is of another run: {}; give run.dir another folder, or these keys "
          "their stored values",
          checkpoint.path().string(), fmt::join(differences, "; "));
  });
}

/// What makes this run another than others, for people to compare.
nlohmann::json TrainingRun::hyper_parameters() const {
  nlohmann::json keys = identity_;
  keys["train.epochs"] = config_.train.epochs;
  keys["train.max_steps"] = config_.train.max_steps;
  return keys;
}

void TrainingRun::cut_records(int64_t last_step) {
  solo(comm_, 0, "run folder", [&] {
    folder_->cut_metrics_at(last_step);
    events_.reset();
    events_.emplace(folder_->tensorboard_path(), last_step, now(), hyper_parameters());
  });
}

void TrainingRun::restore(Checkpoint& checkpoint) {
  agree(comm_, [&] { progress_ = progress_of(checkpoint); });
  restore_parameters(checkpoint, parameters_, Restore::kWeightsAndOptimizer, comm_);
  saved_step_ = progress_.step;
  proven_ = false;
  progress_.stopped_early = patience_is_over();  // epochs or patience may have grown
  begin_interval();
}

/// As far as `progress_` is in the current interval of the log.
void TrainingRun::begin_interval() {
  interval_start_ = Clock::now() - std::chrono::duration_cast<Clock::duration>(
                                       std::chrono::duration<double>(progress_.interval.seconds));
}

void TrainingRun::train_steps() {
  steps_ = make_steps(problem_, parameters_, *schedule_, samples_,
                      negatives_ ? &*negatives_ : nullptr, *requests_, devices_, comm_, pool_);
  ProgressBar bar("training", samples_until(total_steps_),
                  problem_.system.encoder ? "users" : "rows", samples_until(progress_.step));
  train_start_ = tick_ = Clock::now();
  begin_interval();
  const auto due = [this](int64_t every) { return every > 0 && progress_.step % every == 0; };
  const auto ended = [this] { return at_epoch_end() || progress_.step == total_steps_; };
  answer_stops(StopAnswer::kSave);
  while (!complete()) {
    begin_step();
    // On devices the host looks at nothing until it has to: neither at outcomes nor at requests.
    if (std::ssize(begun_) < steps_->most_ahead() && steps_->most_ahead() > 1 && !ended() &&
        !due(config_.log.every_steps) && !due(config_.checkpoint.every_steps))
      continue;
    if (!settle()) continue;
    bar.update(samples_until(progress_.step), [this] { return loss_text(); });
    if (due(config_.log.every_steps) || ended()) report_interval();
    if (ended()) steps_->download(parameters_);
    const bool save_now = ended();  // before an early stop changes what is complete
    if (at_epoch_end()) end_epoch();

    int32_t request = kNothing;
    request_time_.time([&] { request = steps_->agree_request(*requests_, comm_); });
    if (save_now || request != kNothing || due(config_.checkpoint.every_steps)) {
      if (!save_now) steps_->download(parameters_);
      checkpoint_time_.time([&] { save(); });
    }
    if (request == kSaveAndStop && !complete())
      throw SavedOnRequest(
          fmt::format("saved at step {} of {} as asked; run the same command again to continue",
                      progress_.step, total_steps_));
  }
  answer_stops(StopAnswer::kResume);
  if (is_first() && progress_.health.bad_in_a_row > 0)
    log_warning(
        "the last {} steps made no update: the weights may have diverged; the checkpoint of step "
        "{} "
        "is the newest known to be good",
        progress_.health.bad_in_a_row, progress_.health.good_checkpoint);
  report_seconds();
}

/// Where the time went, a mean over the ranks: what is not the steps' own is validation, checkpoints and the rest.
void TrainingRun::report_seconds() {
  const StepSeconds steps = steps_->seconds();
  std::array<double, 7> own{seconds_since(train_start_),
                            steps.input,
                            steps.compute,
                            steps.communication + request_time_.seconds,
                            steps.update,
                            validation_time_.seconds,
                            checkpoint_time_.seconds};
  comm_.all_reduce(std::span<double>(own), Reduction::kSum);
  for (double& seconds : own) seconds /= comm_.world().size;
  const auto& [all, input, compute, communication, update, validation, checkpoint] = own;
  seconds_ = {{"train", all},
              {"input", input},
              {"compute", compute},
              {"communication", communication},
              {"update", update},
              {"validation", validation},
              {"checkpoint", checkpoint}};
  if (!devices_)
    log_info(
        "trained for {:.2f} s: input {:.2f}, compute {:.2f}, exposed communication {:.2f}, "
        "optimizer "
        "{:.2f}, validation {:.2f}, checkpoints {:.2f}",
        all, input, compute, communication, update, validation, checkpoint);
}

double TrainingRun::rate_of(int64_t step) const {
  const double rate =
      learning_rate(config_.train.optimizer.lr, config_.train.schedule, step, total_steps_);
  return progress_.rate_factor == 1
             ? rate
             : std::max(rate * progress_.rate_factor, config_.train.plateau.min_lr);
}

/// Of all ranks, in the steps before this one, which are as long as they come.
int64_t TrainingRun::samples_until(int64_t step) const {
  return static_cast<int64_t>(static_cast<double>(step) / static_cast<double>(schedule_->steps()) *
                              static_cast<double>(schedule_->samples()));
}

/// Of the interval of the log so far; empty while no step of it is settled.
std::string TrainingRun::loss_text() const {
  const ProgressState::Interval& interval = progress_.interval;
  if (interval.samples == 0) return {};
  return fmt::format("loss {:.4f}", interval.loss / static_cast<double>(interval.samples));
}

void TrainingRun::begin_step() {
  set_step(progress_.step);
  const int64_t step_of_epoch = progress_.step % schedule_->steps();
  if (progress_.step >= progress_.pass_over && schedule_->batch_size(step_of_epoch) > 0) {
    begun_.push_back(progress_.step);
    if (looks_for_outliers())
      steps_->set_limits(limits_ = limits_of(progress_.recent, config_.train.outliers,
                                             schedule_->batch_size(step_of_epoch)));
    steps_->run(epoch(), step_of_epoch, rate_of(progress_.step),
                progress_.updates + std::ssize(begun_));
  }
  ++progress_.step;
}

/// Takes the outcomes of the steps that were begun. False when the run went back to a checkpoint.
bool TrainingRun::settle() {
  const std::vector<int64_t> begun = std::exchange(begun_, {});
  const std::vector<StepOutcome> outcomes = steps_->take_outcomes();
  KT_CHECK(outcomes.size() == begun.size());
  for (size_t k = 0; k < begun.size(); ++k) {
    const auto& [loss, gradient_norm] = outcomes[k];
    const bool is_first_since_save = !std::exchange(proven_, true) && saved_step_ >= 0;
    if (!is_sound(outcomes[k], config_.train.clip_norm, limits_)) {
      // The steps begun after it changed nothing: they are taken again.
      progress_.step = begun[k];
      return bad_step(outcomes[k]);
    }
    const int64_t samples = schedule_->batch_size(begun[k] % schedule_->steps());
    ++progress_.updates;
    if (looks_for_outliers())
      remember(progress_.recent, outcomes[k], samples, config_.train.outliers.window);
    progress_.health.bad_in_a_row = 0;
    if (is_usual_loss(progress_.health, loss, samples) && is_first_since_save)
      progress_.health.good_checkpoint = saved_step_;
    progress_.epoch_loss += loss;
    progress_.epoch_samples += samples;
    ProgressState::Interval& interval = progress_.interval;
    interval.loss += loss;
    interval.samples += samples;
    interval.norms += gradient_norm;
    interval.norm_max = std::max(interval.norm_max, gradient_norm);
    ++interval.updates;
  }
  return true;
}

/// At the step whose outcome is not sound. False when the run went back to a checkpoint.
bool TrainingRun::bad_step(const StepOutcome& outcome) {
  // So many in a row come from the weights, not from the rows.
  constexpr int64_t kMostInARow = 32;
  const int64_t step = progress_.step, good = progress_.health.good_checkpoint;
  const std::string fault = fault_of(outcome, limits_);
  const OnBadStep policy = config_.train.on_bad_step;
  if (policy == OnBadStep::kStop)
    throw AgreedError(
        fmt::format("step {} (epoch {}): {}; lower train.optimizer.lr, set train.clip_norm, or "
                    "choose train.on_bad_step=skip or rewind",
                    step, epoch() + 1, fault));
  if (progress_.health.bad_in_a_row + 1 >= kMostInARow)
    throw AgreedError(
        fmt::format("step {}: {}, and so it was at the {} steps before: the weights have diverged; "
                    "lower train.optimizer.lr, set train.clip_norm{} in another run.dir{}",
                    step, fault, kMostInARow - 1,
                    policy == OnBadStep::kSkip ? " or train.on_bad_step=rewind" : "",
                    good >= 0 ? fmt::format("; the checkpoint of step {} is good", good) : ""));
  if (policy == OnBadStep::kRewind) {
    rewind(fault);
    return false;
  }
  if (is_first()) log_warning("step {}: {}; no update", step, fault);
  ++progress_.health.bad_in_a_row;
  ++progress_.bad_steps;
  ++progress_.step;
  return true;
}

/// Back to the newest checkpoint that is known to be good, or to the newest where none is.
void TrainingRun::rewind(const std::string& fault) {
  const int64_t step = progress_.step, good = progress_.health.good_checkpoint;
  const int64_t bad_steps = progress_.bad_steps, in_a_row = progress_.health.bad_in_a_row;
  CheckpointChoice choice;
  if (good >= 0)
    choice = {.which = CheckpointChoice::Which::kPath,
              .path = checkpoint_path(config_.run.dir, good)};
  std::optional<Checkpoint> checkpoint = find_checkpoint(config_.run.dir, choice, comm_);
  if (!checkpoint)
    throw AgreedError(
        fmt::format("step {}: {} and there is no checkpoint to rewind to; set "
                    "checkpoint.every_steps, or lower train.optimizer.lr",
                    step, fault));
  restore(*checkpoint);
  steps_->upload(parameters_);
  cut_records(progress_.step);
  solo(comm_, 0, "run folder", [&] {
    folder_->drop_metrics("rewind", progress_.step);  // of an earlier start that saved nothing since
    drop_checkpoints_after(config_.run.dir, progress_.step);
  });
  record({{"kind", "rewind"}, {"step", progress_.step}, {"bad_step", step}});
  if (is_first())
    log_warning("step {}: {}; back to step {}, and the steps up to {} are passed over", step, fault,
                progress_.step, step);
  progress_.pass_over = step + 1;
  progress_.bad_steps = bad_steps + 1;
  progress_.health.bad_in_a_row = in_a_row + 1;
}

void TrainingRun::report_interval() {
  const ProgressState::Interval interval = std::exchange(progress_.interval, {});
  const double seconds = seconds_since(interval_start_);
  const double loss =
      interval.samples > 0 ? interval.loss / static_cast<double>(interval.samples) : std::nan("");
  const double rate = static_cast<double>(interval.samples) / std::max(seconds, 1e-9);
  const double lr = rate_of(progress_.step - 1);
  const int64_t epoch_number = (progress_.step - 1) / schedule_->steps() + 1;
  const double norm = interval.norms / static_cast<double>(std::max<int64_t>(interval.updates, 1));
  log_info(
      "epoch {}/{} step {}/{}  loss {:.5f}  gradient norm {:.3g} (largest {:.3g})  lr {:.3g}  "
      "{:.0f} samples/s",
      epoch_number, config_.train.epochs, progress_.step, total_steps_, loss, norm,
      interval.norm_max, lr, rate);
  if (interval.samples > 0)
    record({{"kind", "interval"},
            {"step", progress_.step},
            {"epoch", epoch_number},
            {"loss", loss},
            {"gradient_norm", norm},
            {"gradient_norm_max", interval.norm_max},
            {"learning_rate", lr},
            {"samples_per_second", rate}});
  interval_start_ = Clock::now();
}

void TrainingRun::end_epoch() {
  const int64_t number = epoch();  // epochs done, since the step is the first of the next
  const double training_seconds = progress_.epoch_seconds + seconds_since(tick_);
  const auto rows = static_cast<double>(std::max<int64_t>(progress_.epoch_samples, 1));
  nlohmann::json line{{"epoch", number},
                      {"step", progress_.step},
                      {"seconds", training_seconds},
                      {"samples_per_second", static_cast<double>(progress_.epoch_samples) /
                                                 std::max(training_seconds, 1e-9)},
                      {"train_loss", progress_.epoch_loss / rows}};
  ValidationResult validation;
  if (validation_rows_ > 0) {
    const Phase phase("validation");
    validation_time_.time([&] {
      if (!validator_) validator_.emplace(samples_, labels_, comm_, pool_);
      validation = validator_->validate(*make_predictor());
    });
    nlohmann::json& json = line["validation"];
    json = {{"rows", validation.rows},
            {"mse", validation.mse},
            {"rmse", validation.rmse},
            {"mae", validation.mae},
            {"mse_clipped", validation.mse_clipped},
            {"rmse_clipped", validation.rmse_clipped},
            {"mae_clipped", validation.mae_clipped}};
    if (validation.gauc) json["gauc"] = *validation.gauc;
    if (validation.gauc && highest_threshold(labels_)->name != "ratio>=2")
      line["gauc_label"] = highest_threshold(labels_)->name;
    if (validation.xauc) json["xauc"] = *validation.xauc;
  }
  log_info(
      "epoch {}/{} done in {:.1f} s: train loss {:.5f}{}", number, config_.train.epochs,
      training_seconds, progress_.epoch_loss / rows,
      validation.rows > 0
          ? fmt::format(", validation mse {:.5f} mae {:.5f}, clipped {:.5f} {:.5f}", validation.mse,
                        validation.mae, validation.mse_clipped, validation.mae_clipped)
          : "");
  progress_.epochs.push_back(line);
  update_best(progress_.best, config_.checkpoint.best,
              value_of(validation, config_.checkpoint.best), progress_.step);
  const auto& early = config_.train.early_stop;
  if (early.metric != SelectionMetric::kNone) {
    update_best(progress_.early_stop, early.metric, value_of(validation, early.metric),
                progress_.step);
    progress_.stopped_early = patience_is_over();
    if (progress_.stopped_early) {
      log_info("early stop: validation {} has not improved for {} epochs", name_of(early.metric),
               progress_.early_stop.epochs_since);
    }
  }
  lower_rate_on_plateau(validation);
  line["kind"] = "epoch";
  record(line);
  record_weights();
  progress_.epoch_loss = 0;
  progress_.epoch_samples = 0;
  progress_.epoch_seconds = 0;
  progress_.wall_seconds += seconds_since(tick_);
  tick_ = Clock::now();
  const bool last = complete();
  const bool due = config_.evaluate.every > 0 && number % config_.evaluate.every == 0;
  if (due && !last && problem_.dataset.test_rows() > 0)
    evaluate_now(fmt::format("step {}", progress_.step));
  interval_start_ = Clock::now();
}

void TrainingRun::lower_rate_on_plateau(const ValidationResult& validation) {
  const auto& plateau = config_.train.plateau;
  if (plateau.metric == SelectionMetric::kNone) return;
  update_best(progress_.plateau, plateau.metric, value_of(validation, plateau.metric),
              progress_.step);
  if (progress_.plateau.epochs_since < plateau.patience) return;
  progress_.plateau.epochs_since = 0;
  progress_.rate_factor *= plateau.factor;
  log_info("plateau: validation {} has not improved for {} epochs; the learning rate is {:.3g} now",
           name_of(plateau.metric), plateau.patience, rate_of(progress_.step));
}

void TrainingRun::save() {
  if (saved_step_ == progress_.step) return;
  const Phase phase("checkpoint");
  const double passed = seconds_since(tick_);
  progress_.wall_seconds += passed;
  progress_.epoch_seconds += passed;
  tick_ = Clock::now();
  progress_.interval.seconds = seconds_since(interval_start_);
  save_checkpoint(config_.run.dir, parameters_, progress_, identity_, config_.checkpoint.keep,
                  comm_);
  saved_step_ = progress_.step;
  proven_ = false;
  requests_->checkpoint_saved();
  interval_start_ += Clock::now() - tick_;  // an interval's rate is that of training
  progress_.wall_seconds += seconds_since(tick_);
  tick_ = Clock::now();
}

/// Lets go of what no evaluation reads. On devices the steps, which predict there, go on with all of it.
void TrainingRun::end_training() {
  if (devices_) return;
  validator_.reset();
  steps_.reset();
  negatives_.reset();
  samples_ = {};
  problem_.columns.train_rows = {};
  parameters_.end_training();
  ::malloc_trim(0);
}

/// Leaves in `parameters_` what was evaluated.
nlohmann::json TrainingRun::final_evaluation() {
  if (problem_.dataset.test_rows() == 0) {
    log_info("no evaluation: the data set has no test table");
    return nullptr;
  }
  const bool best = config_.evaluate.checkpoint == EvaluatedCheckpoint::kBest;
  if (best && progress_.best.step < 0)
    throw AgreedError(fmt::format(
        "{}: no checkpoint is the best: no epoch had a value of checkpoint.best={}; set "
        "evaluate.checkpoint=last",
        config_.run.dir, name_of(config_.checkpoint.best)));
  if (best && progress_.best.step != progress_.step) {
    std::optional<Checkpoint> checkpoint =
        find_checkpoint(config_.run.dir,
                        {.which = CheckpointChoice::Which::kPath,
                         .path = checkpoint_path(config_.run.dir, progress_.best.step)},
                        comm_);
    restore_parameters(*checkpoint, parameters_, Restore::kWeights, comm_);
    if (steps_) steps_->upload(parameters_);
    return evaluate_now(fmt::format("step {} (best)", progress_.best.step));
  }
  return evaluate_now(fmt::format("step {} ({})", progress_.step, best ? "best" : "last"));
}

nlohmann::json TrainingRun::evaluate_now(const std::string& checkpoint) {
  if (!evaluator_) {
    agree(comm_, [&] { test_ = read_test_table(problem_); });
    evaluator_.emplace(problem_, test_, comm_, pool_);
  }
  nlohmann::json json = evaluator_->evaluate(*make_predictor(), checkpoint).report;
  if (is_first()) print_evaluation(problem_, json);
  record({{"kind", "evaluation"},
          {"step", progress_.step},
          {"checkpoint", checkpoint},
          {"metrics", json.at("metrics")}});
  return json;
}

/// Of the steps while there are any, else of `parameters_`.
std::unique_ptr<Predictor> TrainingRun::make_predictor() {
  return steps_ ? steps_->make_predictor(problem_, parameters_, comm_)
                : make_host_predictor(problem_, parameters_, comm_);
}

nlohmann::json TrainingRun::result(const std::string& weights_hash, nlohmann::json evaluation) {
  nlohmann::json json = run_facts(comm_, config_.parallel.threads);
  json["config"] = to_json(config_);
  json["backend"] = devices_ ? "nccl" : "mpi";
  json["reduce"] = name_of(config_.parallel.reduce);
  json["dataset"] = {{"path", config_.data.path},
                     {"hash", problem_.dataset.hash()},
                     {"synthetic", problem_.dataset.synthetic()},
                     {"rows_train", schedule_->samples()},
                     {"rows_validation", validation_rows_},
                     {"small_pairs", problem_.dataset.test_rows()}};
  if (cleans(config_.data)) json["dataset"]["dropped_at_load"] = to_json(dropped_);
  json["parameters"] = parameters_.count();
  json["weights_hash"] = weights_hash;
  json["steps"] = progress_.step;
  json["updates"] = progress_.updates;
  json["bad_steps"] = progress_.bad_steps;
  json["stopped_early"] = progress_.stopped_early;
  json["wall_seconds"] = progress_.wall_seconds;
  if (!seconds_.is_null()) json["seconds"] = seconds_;
  json["epochs"] = progress_.epochs;
  json["evaluation"] = std::move(evaluation);
  json["resumed_from"] = progress_.resumed_from;
  return json;
}

void TrainingRun::record(const nlohmann::json& line) {
  if (!is_first()) return;
  folder_->append_metrics(line);
  std::vector<std::pair<std::string, double>> scalars;
  const std::string kind = line.at("kind");
  for (const auto& [key, value] : line.items()) {
    if (value.is_number() && key != "step" && key != "epoch")
      scalars.emplace_back((kind == "interval" ? "train/" : kind + "/") + key, value);
    if (key == "validation" || key == "metrics")
      for (const auto& [name, number] : value.items())
        scalars.emplace_back((key == "metrics" ? "evaluation/" : "validation/") + name, number);
  }
  events_->add(line.at("step"), now(), scalars);
}

void TrainingRun::record_weights() {
  std::vector<std::pair<std::string, Histogram>> histograms =
      weight_histograms(parameters_, comm_, pool_);
  if (!is_first()) return;
  for (auto& [name, histogram] : histograms) name = "weights/" + name;
  events_->add(progress_.step, now(), histograms);
}

}  // namespace

nlohmann::json train(const Config& config, MpiCommunicator& comm, Devices* devices) {
  TrainingRun run(config, comm, devices);
  return run.run();
}

}  // namespace kt
