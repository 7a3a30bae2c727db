#include "io/config/keys.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <variant>

#include "io/config/values.h"

namespace kt {
namespace {

using namespace values;

// Bounds of counts: above what any run can want, and so small that what is computed from them is exact. Epochs times
// the steps of one, which are at most the rows, fit 64 bits; so do sums of steps, which doubles hold, too.
constexpr int64_t kMostEpochs = 1'000'000;
constexpr int64_t kMostSteps = 1'000'000'000'000'000;
constexpr int64_t kMostSeconds = 100'000'000;
constexpr Range<int64_t> whole(int64_t low, int64_t high) { return {.low = low, .high = high}; }
// Of a value that becomes a float: within what a float holds with full precision, so that it neither vanishes nor
// becomes infinite.
constexpr Range<double> of_a_float() { return {.low = 1e-37, .high = 3e38}; }
constexpr Range<double> of_a_float_or_zero() {
  return {.low = 1e-37, .high = 3e38, .or_zero = true};
}
constexpr Range<double> share() { return {.low = 1e-37, .high = 1, .high_open = true}; }
constexpr Range<double> below_one() { return {.low = 0, .high = 1, .high_open = true}; }
// A float below one; the next double below one is a float of one.
constexpr Range<double> decay() { return {.low = 0, .high = 0.9999999}; }

template <class T, class Allowed>
Key key_of(std::string path, T& value, Allowed allowed, std::string use) {
  return {std::move(path), [&value, allowed] { return expected(value, allowed); }, std::move(use),
          [&value, allowed](const YAML::Node& node) { return read(node, allowed, value); },
          [&value] { return write(value); }};
}

// What the values of an option may be, by its kind.
Range<int64_t> allowed_of(int64_t, const OptionDeclaration& option) {
  return whole(static_cast<int64_t>(option.bounds.low), static_cast<int64_t>(option.bounds.high));
}
Range<double> allowed_of(double, const OptionDeclaration& option) {
  return {option.bounds.low, option.bounds.high, option.bounds.high_open};
}
Word allowed_of(const std::string&, const OptionDeclaration& option) { return {option.words}; }
Any allowed_of(bool, const OptionDeclaration&) { return {}; }
List allowed_of(const std::vector<int64_t>&, const OptionDeclaration& option) {
  return {allowed_of(int64_t{}, option)};
}

Word names_of(std::span<const ModelDeclaration> models) {
  Word word;
  for (const ModelDeclaration& model : models) word.allowed.push_back(model.name);
  return word;
}

/// The edit distance where it is below `limit`, else `limit`.
int64_t edit_distance(std::string_view a, std::string_view b, int64_t limit) {
  if (std::abs(std::ssize(a) - std::ssize(b)) >= limit) return limit;
  std::vector<int64_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int64_t>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int64_t diagonal = row[0], least = row[0] = static_cast<int64_t>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int64_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min(std::min(row[j], row[j - 1]) + 1, replaced);
      least = std::min(least, row[j]);
    }
    if (least >= limit) return limit;
  }
  return std::min(row.back(), limit);
}

std::string_view last_part(std::string_view path) {
  return path.substr(path.rfind('.') + 1);  // npos + 1 == 0
}

}  // namespace

std::vector<Key> keys_of(OptionValues& options) {
  std::vector<Key> keys;
  for (OptionValues::Option& option : options.all) {
    const OptionDeclaration& declared = option.declared;
    std::visit(
        [&](auto& value) {
          keys.push_back(
              key_of("model." + declared.path, value, allowed_of(value, declared), declared.text));
        },
        option.value);
  }
  return keys;
}

std::vector<Key> keys_of(Config& config, std::span<const ModelDeclaration> models) {
  std::vector<Key> keys;
  const auto add = [&keys](std::string path, auto& value, auto allowed, std::string use) {
    keys.push_back(key_of(std::move(path), value, std::move(allowed), std::move(use)));
  };

  auto& data = config.data;
  add("data.path", data.path, Path{}, "the data set; none: ./kuaitrain-data, made when absent");
  add("data.validation.kind", data.validation.kind, Any{},
      "rows held out: a random part, or the last in time");
  add("data.validation.fraction", data.validation.fraction, below_one(),
      "share of the training rows held out; 0: none");
  add("data.target.clip", data.target.clip, of_a_float_or_zero(),
      "labels that are trained on are cut to this; 0: off");
  add("data.features.until", data.features.until, Any{}, "daily features up to this day alone");
  add("data.features.missing", data.features.missing, Any{}, "what a missing feature becomes");
  add("data.filter.positive", data.filter.positive, Any{},
      "leaves out training rows whose label is 0 or less; no filter touches the test table");
  add("data.filter.max_duration_ms", data.filter.max_duration_ms,
      whole(0, std::numeric_limits<int32_t>::max()),
      "leaves out training rows of longer videos (video_duration of the row); 0: off");
  add("data.filter.video_type", data.filter.video_type, Any{},
      "normal: leaves out training rows of videos whose first daily row has another video_type "
      "than NORMAL, or that have none");
  add("data.filter.visibility", data.filter.visibility, Any{},
      "public: leaves out training rows of videos whose first daily row has another "
      "visible_status than public, or that have none");
  add("data.filter.max_label", data.filter.max_label, of_a_float_or_zero(),
      "leaves out training rows whose label is above this, after data.repeats; 0: off");
  add("data.repeats", data.repeats, Any{},
      "training rows of one user and video that the other filters leave: all of them, or one in "
      "place of the first, with its label or the sum or mean of all; in a temporal split it has "
      "the time of the first");

  auto& model = config.model;
  add("model.name", model.name, names_of(models), "the model");
  add("model.engine", model.engine, Any{},
      "who computes it: fused, on CPUs and GPUs, or torch (libtorch); auto: fused, torch for a "
      "lower precision");
  add("model.form", model.form, Any{},
      "of the fused engine: what depends on a user or a video alone is computed for every row, or "
      "once for each of a step's ids; auto: ids from a global batch of 512");
  for (Key& option : keys_of(model.options)) keys.push_back(std::move(option));

  auto& train = config.train;
  add("train.epochs", train.epochs, whole(1, kMostEpochs), "passes over the training rows");
  add("train.max_steps", train.max_steps, whole(0, kMostSteps),
      "ends the training at this step; 0: off");
  add("train.seed", train.seed, whole(0, std::numeric_limits<int64_t>::max()),
      "of every random draw");
  add("train.global_batch", train.global_batch, whole(1, kMostRows),
      "rows of a step over all ranks, whose number never changes it");
  add("train.weight_decay", train.weight_decay, of_a_float_or_zero(),
      "adamw: decoupled; adam, sgd: added to the gradient");
  add("train.clip_norm", train.clip_norm, of_a_float_or_zero(),
      "largest norm of the whole gradient; 0: off");
  add("train.optimizer.name", train.optimizer.name, Any{}, "the optimizer");
  add("train.optimizer.lr", train.optimizer.lr, of_a_float(), "learning rate");
  add("train.optimizer.beta1", train.optimizer.beta1, decay(), "adam, adamw: first moment");
  add("train.optimizer.beta2", train.optimizer.beta2, decay(), "adam, adamw: second moment");
  add("train.optimizer.epsilon", train.optimizer.epsilon, of_a_float(),
      "adam, adamw: added to the root of the second moment");
  add("train.optimizer.momentum", train.optimizer.momentum, decay(), "sgd alone");
  add("train.schedule.name", train.schedule.name, Any{}, "learning rate after the warm-up");
  add("train.schedule.warmup_steps", train.schedule.warmup_steps, whole(0, kMostSteps),
      "steps from lr / warmup_steps up to lr");
  add("train.schedule.steps", train.schedule.steps, whole(0, kMostSteps),
      "length of linear and cosine, warm-up included; 0: as long as the run, which may then not "
      "grow");
  add("train.early_stop.metric", train.early_stop.metric, Any{},
      "validation metric that must improve");
  add("train.early_stop.patience", train.early_stop.patience, whole(1, kMostEpochs),
      "epochs without improvement before the stop");
  add("train.plateau.metric", train.plateau.metric, Any{},
      "validation metric without whose improvement the learning rate falls; none: off");
  add("train.plateau.factor", train.plateau.factor, share(),
      "the learning rate is multiplied by it");
  add("train.plateau.patience", train.plateau.patience, whole(1, kMostEpochs),
      "epochs without improvement before it falls");
  add("train.plateau.min_lr", train.plateau.min_lr, of_a_float_or_zero(), "it falls no further");
  add("train.on_bad_step", train.on_bad_step, Any{},
      "at a loss or gradient that is not finite, or an outlier: end, leave the step out, or go "
      "back to the last "
      "checkpoint and leave it out");
  add("train.outliers.loss", train.outliers.loss, of_a_float_or_zero(),
      "a step whose loss is so many standard deviations above the mean of the last is a bad step; "
      "0: off");
  add("train.outliers.gradient_norm", train.outliers.gradient_norm, of_a_float_or_zero(),
      "likewise by the gradient's norm; 0: off");
  add("train.outliers.window", train.outliers.window, whole(2, 100'000),
      "steps that mean and deviation are of; before so many there are no outliers");

  auto& parallel = config.parallel;
  add("parallel.backend", parallel.backend, Any{},
      "mpi: on CPUs; nccl: a GPU a rank; auto: nccl where every rank has one");
  add("parallel.reduce", parallel.reduce, Any{},
      "exact: the same bits on any number of ranks; fast: the backend's own sum");
  add("parallel.simd", parallel.simd, Any{},
      "vector instructions of the fused engine; auto: the widest this CPU has; the same bits on "
      "all");
  add("parallel.precision", parallel.precision, Any{},
      "of products on GPUs: fp32, or with reduce: fast tf32 or bf16; weights are fp32 always");
  add("parallel.ranks", parallel.ranks, whole(0, 1 << 20),
      "ranks that the run must be started on; 0: any number");
  add("parallel.threads", parallel.threads, whole(1, 1024), "threads of a rank");
  add("parallel.timeout_s", parallel.timeout_s, whole(1, kMostSeconds),
      "seconds of silence before a run is given up");

  auto& evaluate = config.evaluate;
  add("evaluate.every", evaluate.every, whole(0, kMostEpochs),
      "epochs between evaluations; 0: at the end");
  add("evaluate.k", evaluate.k, GrowingList{whole(1, kMostRows)},
      "lengths of the lists of the ranking metrics");
  add("evaluate.labels", evaluate.labels, LabelNames{},
      "which candidates of a user are relevant, for the ranking metrics");
  add("evaluate.checkpoint", evaluate.checkpoint, Any{}, "which weights the end evaluates");
  add("evaluate.bootstrap", evaluate.bootstrap, whole(0, 1'000'000),
      "draws of the test users, for the 95 % intervals of metrics; 0: no intervals");
  add("evaluate.candidates", evaluate.candidates, Any{},
      "what lists are of: the videos a user has test rows of, or all videos less those of the "
      "user's training rows");
  add("evaluate.groups", evaluate.groups, Any{},
      "true: also by tenths of video duration, user activity and video popularity");
  add("evaluate.play_time", evaluate.play_time, Any{},
      "true: also scores as play times, ratios times the durations of their videos");

  auto& checkpoint = config.checkpoint;
  add("checkpoint.every_steps", checkpoint.every_steps, whole(0, kMostSteps), "0: at epochs only");
  add("checkpoint.every_seconds", checkpoint.every_seconds, whole(0, kMostSeconds),
      "0: never by time");
  add("checkpoint.keep", checkpoint.keep, whole(2, kMostEpochs),
      "the newest so many are kept, and the best one");
  add("checkpoint.best", checkpoint.best, Any{}, "validation metric that decides the best one");
  add("checkpoint.resume", checkpoint.resume, Path{.may_be_empty = false},
      "auto: continue what run.dir holds; never: refuse a run.dir that holds checkpoints; a path: "
      "continue that checkpoint");

  add("log.every_steps", config.log.every_steps, whole(1, kMostSteps), "steps between lines");
  add("run.dir", config.run.dir, Path{},
      "folder of the run; none: runs/<name of the configuration>");
  add("run.max_seconds", config.run.max_seconds, whole(0, kMostSeconds),
      "saves and ends the run (exit 85) after this time; 0: off");
  return keys;
}

bool is_in_section(std::string_view path, std::string_view section) {
  return path.size() > section.size() && path.starts_with(section) && path[section.size()] == '.';
}

std::string nearest_name(std::span<const std::string_view> known, std::string_view unknown) {
  // Of a longer one the beginning says as much, and all of it would take time by its length.
  constexpr size_t kLongest = 64;
  unknown = unknown.substr(0, kLongest);
  std::string_view best;
  int64_t best_distance = std::numeric_limits<int64_t>::max();
  for (const std::string_view name : known) {
    // The right word in the wrong section counts as one slip.
    const int64_t distance =
        std::min(edit_distance(unknown, name, best_distance),
                 2 * edit_distance(last_part(unknown), last_part(name), best_distance / 2) + 1);
    if (distance < best_distance) {
      best_distance = distance;
      best = name;
    }
  }
  return std::string(best);
}

}  // namespace kt
