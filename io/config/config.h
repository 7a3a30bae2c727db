#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/config/enums.h"
#include "launch/base/options.h"

/// The configuration of a run: a YAML file of sections, plus `a.b=value` from the command line (io/config/reader.h).
/// The members are named as the keys; io/config/keys.cpp has the one list of keys, with their ranges and a line about
/// each (`kuaitrain validate --help` prints it).
namespace kt {

/// A day, `yyyy-mm-dd` in the configuration. Units: yyyymmdd as the daily table has it; 0 for none.
struct Date {
  int32_t yyyymmdd = 0;
  bool operator==(const Date&) const = default;
};

struct OptimizerOptions {
  OptimizerName name = OptimizerName::kAdam;
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double momentum = 0;  ///< sgd only
};

struct ScheduleOptions {
  ScheduleName name = ScheduleName::kConstant;
  int64_t warmup_steps = 0;
  int64_t steps = 0;  ///< 0: as long as the run (epochs, max_steps)
};

struct Config {
  struct Data {
    std::string path;  ///< empty: the default data set
    struct Validation {
      ValidationKind kind = ValidationKind::kRandom;
      double fraction = 0.1;  ///< 0: no validation
    } validation;
    struct Target {
      double clip = 0;  ///< 0: off
    } target;
    struct Features {
      Date until;
      MissingValue missing = MissingValue::kZero;
    } features;
    /// Training rows that are left out at load (trainer/run/cleaning.h).
    struct Filter {
      bool positive = false;
      double max_label = 0;         ///< 0: off
      int64_t max_duration_ms = 0;  ///< 0: off
      VideoType video_type = VideoType::kAny;
      Visibility visibility = Visibility::kAny;
    } filter;
    Repeats repeats = Repeats::kKeep;
  } data;

  struct Model {
    std::string name;  ///< none given: the first that is declared
    // A run resolves `auto` before it prints and stores its configuration.
    EngineName engine = EngineName::kAuto;
    FormName form = FormName::kAuto;
    OptionValues options;  ///< of the model `name`: the keys `model.<path>` that it declares
  } model;

  struct Train {
    int64_t epochs = 5;
    int64_t max_steps = 0;  ///< 0: off
    int64_t seed = 1;
    int64_t global_batch = 4096;  ///< rows of a step over all ranks
    double weight_decay = 0;
    double clip_norm = 0;  ///< 0: off
    OptimizerOptions optimizer;
    ScheduleOptions schedule;
    struct EarlyStop {
      SelectionMetric metric = SelectionMetric::kNone;
      int64_t patience = 2;  ///< epochs
    } early_stop;
    /// The learning rate times `factor` whenever `metric` has not improved for `patience` epochs.
    struct Plateau {
      SelectionMetric metric = SelectionMetric::kNone;  ///< none: off
      double factor = 0.5;
      int64_t patience = 2;  ///< epochs
      double min_lr = 0;
    } plateau;
    OnBadStep on_bad_step = OnBadStep::kStop;
    /// A step that is so many standard deviations above the mean of the last `window` sound ones is a bad one.
    struct Outliers {
      double loss = 0;  ///< 0: off
      double gradient_norm = 0;
      int64_t window = 128;  ///< steps; before so many there are no outliers
    } outliers;
  } train;

  struct Parallel {
    Backend backend = Backend::kAuto;
    Reduce reduce = Reduce::kExact;
    Simd simd = Simd::kAuto;
    Precision precision = Precision::kFp32;  ///< of products on GPUs; weights are fp32 always
    int64_t ranks = 0;                       ///< 0: as many as are started
    int64_t threads = 1;                     ///< per rank
    int64_t timeout_s = 60;
  } parallel;

  struct Evaluate {
    int64_t every = 0;  ///< epochs; 0: at the end
    std::vector<int64_t> k = {10, 50, 100};
    /// Which candidates are relevant: `ratio>=X`, `top-N`, `duration-p80`.
    std::vector<std::string> labels = {"ratio>=1", "ratio>=2", "top-50", "duration-p80"};
    EvaluatedCheckpoint checkpoint = EvaluatedCheckpoint::kLast;
    EvaluationCandidates candidates = EvaluationCandidates::kObserved;
    int64_t bootstrap = 1000;  ///< replicates; 0: no intervals
    bool groups = false;
    bool play_time = false;
  } evaluate;

  struct Checkpoint {
    int64_t every_steps = 0;    ///< 0: at the ends of epochs only
    int64_t every_seconds = 0;  ///< 0: never by time
    int64_t keep = 2;
    SelectionMetric best = SelectionMetric::kMse;
    std::string resume = "auto";  ///< auto, never, or the path of a checkpoint
  } checkpoint;

  struct Log {
    int64_t every_steps = 100;
  } log;

  struct Run {
    std::string dir;          ///< load_config puts `runs/<config name>` where none is given
    int64_t max_seconds = 0;  ///< 0: off
  } run;
};

}  // namespace kt
