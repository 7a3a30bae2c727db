#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// The configuration of a run: a YAML file of sections, plus `a.b=value` from the command line. The
/// members are named as the keys; io/config/config.cpp has the one list of keys, with their ranges and a
/// line about each
/// (`kuaitrain validate --help` prints it).
namespace kt {

enum class ValidationKind { kRandom, kTemporal };
enum class MissingValue { kZero, kMedian };
enum class Content { kDaily, kNone };
/// Who computes the model, and what of it once for each user and item of a step (models/fused/compiler.h).
enum class EngineName { kAuto, kFused, kTorch };
enum class FormName { kAuto, kRows, kIds };
enum class OptimizerName { kAdam, kAdamW, kSgd };
enum class ScheduleName { kConstant, kLinear, kCosine };
/// A metric of the validation rows that a run may select by; errors are better when smaller.
enum class SelectionMetric { kNone, kMse, kMae, kMseClipped, kMaeClipped, kGauc, kXauc };
enum class OnBadStep { kStop, kSkip, kRewind };
enum class Backend { kAuto, kMpi, kNccl };
enum class Reduce { kExact, kFast };
enum class Simd { kAuto, kAvx2, kAvx512 };
enum class Precision { kFp32, kTf32, kBf16 };
enum class EvaluatedCheckpoint { kLast, kBest };

/// The name the configuration has for a value: "random", "adamw", "gauc", ...
std::string_view name_of(ValidationKind);
std::string_view name_of(MissingValue);
std::string_view name_of(Content);
std::string_view name_of(EngineName);
std::string_view name_of(FormName);
std::string_view name_of(OptimizerName);
std::string_view name_of(ScheduleName);
std::string_view name_of(SelectionMetric);
std::string_view name_of(OnBadStep);
std::string_view name_of(Backend);
std::string_view name_of(Reduce);
std::string_view name_of(Simd);
std::string_view name_of(Precision);
std::string_view name_of(EvaluatedCheckpoint);

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
  } data;

  struct Model {
    std::string name = "ncf";
    Content content = Content::kDaily;
    // A run resolves `auto` before it prints and stores its configuration.
    EngineName engine = EngineName::kAuto;
    FormName form = FormName::kAuto;
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
    OnBadStep on_bad_step = OnBadStep::kStop;
  } train;

  struct Parallel {
    Backend backend = Backend::kAuto;
    Reduce reduce = Reduce::kExact;
    Simd simd = Simd::kAuto;
    Precision precision = Precision::kFp32;  ///< of products on GPUs; weights are fp32 always
    int64_t threads = 1;                     ///< per rank
    int64_t timeout_s = 60;
  } parallel;

  struct Evaluate {
    int64_t every = 0;  ///< epochs; 0: at the end
    std::vector<int64_t> k = {10, 50, 100};
    std::vector<std::string> labels = {"ratio>=1", "ratio>=2", "top-50", "duration-p80"};
    EvaluatedCheckpoint checkpoint = EvaluatedCheckpoint::kLast;
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

/// `configs/ncf.yaml`: beside the program, in a folder above it, or in the tree it was built from.
/// Throws: UserError when it is in none of them.
std::filesystem::path default_config_path();

/// A configuration as far as it can be read, and every fault of it, in the order of the lines. A
/// fault is one line: `file:line: key: got ..., expected ...; what to do`, with `command line:
/// key=value` for an override.
struct ConfigReading {
  Config config;
  std::vector<std::string> faults;
};

/// Reads YAML `text`, then the overrides `a.b=value`, in order: the last one wins. `name` stands
/// for the file in messages, and its stem is the name of the configuration.
ConfigReading read_config(const std::string& text, const std::filesystem::path& name,
                          const std::vector<std::string>& overrides);
/// The same for a file; an empty path is the default configuration.
ConfigReading read_config_file(const std::filesystem::path& file,
                               const std::vector<std::string>& overrides);
/// A configuration without a fault. Throws: UserError with every fault, a line each.
Config load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides);

/// The effective configuration, every key; reads back to an equal one.
std::string to_yaml(const Config& config);
/// The same as nested objects, for result.json.
nlohmann::json to_json(const Config& config);
/// All keys with their default, range and use, for people.
std::string describe_keys();

/// Key and value of everything that must be the same on all ranks of a run: all keys but `parallel.threads`,
/// `parallel.simd` and `log.*`. The folder of the run and a checkpoint to resume, which all ranks must find, are
/// absolute; what `data.path` leads to is compared by its hash as well.
std::vector<std::pair<std::string, std::string>> settings_of_all_ranks(const Config& config);

/// What decides the result of a run, by dotted key: the data set's hash, `data` less its path,
/// `model`, `train` less `epochs`, `max_steps` and `early_stop.patience`, `parallel.reduce`. A schedule that is as long as
/// the run brings `epochs` and `max_steps` in: such a run may not grow.
nlohmann::json identity(const Config& config, const std::string& dataset_hash);
/// A line for every key that differs: `key: stored ..., now ...`.
std::vector<std::string> identity_differences(const nlohmann::json& stored,
                                              const nlohmann::json& current);

}  // namespace kt
