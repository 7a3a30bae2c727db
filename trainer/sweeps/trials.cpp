#include "trainer/sweeps/trials.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "io/config/identity.h"
#include "io/config/keys.h"
#include "io/config/reader.h"
#include "io/config/writers.h"
#include "io/dataset/dataset.h"
#include "io/files/checksum.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "models/systems/registry.h"
#include "trainer/run/problem.h"
#include "trainer/sweeps/rungs.h"
#include "trainer/sweeps/space.h"

namespace kt {
namespace {

using nlohmann::json;

/// The value of a key of any model; null for one that there is not.
json default_of(const std::string& path) {
  for (const ModelDeclaration& model : model_declarations()) {
    Config config;
    config.model.options = OptionValues(model.options);
    for (const Key& key : keys_of(config))
      if (key.path == path) return key.write();
  }
  return nullptr;
}

/// What decides the result of a trial, beside what a run's identity says.
json deciding_facts(const Config& config, const std::string& dataset_hash) {
  json facts = identity(config, dataset_hash);
  Config copy = config;
  for (const Key& key : keys_of(copy))
    if (key.path == "train.epochs" || key.path == "train.max_steps" ||
        key.path == "train.early_stop.patience" || key.path == "checkpoint.best" ||
        (is_in_section(key.path, "evaluate") && key.path != "evaluate.bootstrap"))
      facts[key.path] = key.write();
  return facts;
}

/// Reads the trials and gathers what is wrong with them.
class Loader {
 public:
  Loader(Sweep& sweep, const std::vector<std::string>& overrides, std::vector<std::string>& faults)
      : sweep_(sweep), file_(sweep.file), overrides_(overrides), faults_(faults) {}

  void load() {
    for (Parameter& parameter : sweep_.file.parameters)
      parameter.whole = default_of(parameter.key).is_number_integer();
    check_keys();
    if (!faults_.empty()) return;
    const std::vector<ParameterValues> values = values_of_trials();
    for (const ParameterValues& of_trial : values) read_trial(of_trial);
    if (!faults_.empty()) return;
    check_comparable();
    if (file_.search.kind == SearchKind::kHalving) check_halving();
    if (faults_.empty()) name_trials();
  }

 private:
  void fault(const std::string& text) {
    if (std::ranges::find(faults_, text) == faults_.end()) faults_.push_back(text);
  }

  /// Keys that a sweep does not leave to its file, or that are given twice.
  void check_keys() {
    std::map<std::string, std::string> places;
    const auto take = [&](const std::string& argument, const std::string& place, bool may_repeat) {
      const std::string key = argument.substr(0, argument.find('='));
      if (key == "run.dir" || key == "checkpoint.resume")
        fault(
            fmt::format("{}: {}: trials have folders of their own and go on where they stopped; "
                        "leave it out",
                        place, key));
      const auto [first, is_new] = places.emplace(key, place);
      if (!is_new && !may_repeat)
        fault(
            fmt::format("{}: {}: got it as a parameter, but it is set for all trials ({}); keep "
                        "one of them",
                        place, key, first->second));
    };
    for (size_t k = 0; k < file_.set.size(); ++k) take(file_.set[k], file_.set_places[k], true);
    for (const std::string& argument : overrides_) take(argument, "command line", true);
    for (const Parameter& parameter : file_.parameters) {
      take(parameter.key, parameter.place, false);
      if (file_.search.trials == 0 && parameter.kind != Parameter::Kind::kChoice)
        fault(
            fmt::format("{}: {}: got a range, expected a list of values for a grid; write them, "
                        "or choose a number of trials that are drawn (search)",
                        parameter.place, parameter.key));
    }
  }

  std::vector<ParameterValues> values_of_trials() {
    const Search& search = file_.search;
    const int64_t most = file_.max_trials;
    std::vector<ParameterValues> values;
    if (search.trials == 0) values = grid_of(file_.parameters, most + 1);
    const int64_t count = std::max(search.trials, static_cast<int64_t>(values.size()));
    if (count > most) {
      fault(fmt::format(
          "{}: search: got {} trials, expected at most max_trials={}; give fewer "
          "values or trials, or raise max_trials",
          file_.search_place,
          search.trials > 0 ? std::to_string(count) : fmt::format("over {}", most), most));
      return {};
    }
    for (int64_t k = 0; k < search.trials; ++k)
      values.push_back(draw_values(file_.parameters, search.seed, k));
    return values;
  }

  void read_trial(const ParameterValues& values) {
    std::vector<std::string> settings = file_.set, places = file_.set_places;
    settings.insert(settings.end(), overrides_.begin(), overrides_.end());
    places.resize(settings.size(), "command line");
    for (size_t k = 0; k < values.size(); ++k) {
      if (!values[k]) continue;
      settings.push_back(file_.parameters[k].key + "=" + *values[k]);
      places.push_back(file_.parameters[k].place);
    }
    const auto models = model_declarations();
    ConfigReading reading = file_.config.empty()
                                ? read_config("", file_.path, settings, models, places)
                                : read_config_file(file_.config, settings, models, places);
    for (const std::string& text : reading.faults) fault(text);
    if (!reading.faults.empty()) return;
    Trial trial{.hash = {}, .config = std::move(reading.config), .values = json::object()};
    Config copy = trial.config;
    const std::vector<Key> keys = keys_of(copy);
    for (size_t k = 0; k < values.size(); ++k) {
      const std::string& path = file_.parameters[k].key;
      trial.values[path] = values[k] ? std::ranges::find(keys, path, &Key::path)->write() : json();
    }
    check_objective(trial.config);
    sweep_.trials.push_back(std::move(trial));
  }

  void check_objective(const Config& config) {
    if (config.data.path.empty())
      return fault(
          fmt::format("{}: data.path: got none, expected the data set of all trials; give "
                      "data.path=DATASET",
                      file_.path.string()));
    const std::string lack = lack_of(sweep_.objective, config, is_order(config));
    if (!lack.empty()) fault(fmt::format("{}: {}", file_.objective.place, lack));
  }

  const Dataset& dataset_of(const Config& config) {
    auto [found, is_new] = datasets_.try_emplace(config.data.path);
    if (is_new) found->second = Dataset::open(config.data.path);
    return found->second;
  }

  /// Whether the scores of a run of this configuration are an order alone. Nothing of its size decides that.
  bool is_order(const Config& config) {
    const Dataset& dataset = dataset_of(config);
    const auto [found, is_new] =
        orders_.try_emplace(to_text(to_json(config).at("model")) + config.data.path);
    if (is_new)
      found->second =
          find_system(config.model.name)
              .make(config.model.options, system_inputs(config, columns_of(config), dataset))
              .objective.unit() == ScoreUnit::kOrder;
    return found->second;
  }

  void check_comparable() {
    for (const Parameter& parameter : file_.parameters)
      for (const Trial& trial : sweep_.trials) {
        const std::string bar = bars_comparison(sweep_.objective, parameter.key, trial.config);
        if (!bar.empty()) fault(fmt::format("{}: {}", parameter.place, bar));
        const json facts = deciding_facts(trial.config, "");
        if (parameter.key != "data.path" && !trial.values.at(parameter.key).is_null() &&
            !facts.contains(parameter.key))
          fault(
              fmt::format("{}: {}: changes no result, so there is nothing to choose by; leave it "
                          "out, or set it for all trials (set)",
                          parameter.place, parameter.key));
      }
  }

  void check_halving() {
    const Search& search = file_.search;
    for (const Trial& trial : sweep_.trials) {
      const Config::Train& train = trial.config.train;
      if (std::ranges::find(file_.parameters, "train.epochs", &Parameter::key) !=
          file_.parameters.end())
        fault(
            fmt::format("{}: search: got train.epochs as a parameter, expected it set for all: "
                        "halving gives each rung its epochs",
                        file_.search_place));
      if (train.max_steps > 0)
        fault(
            fmt::format("{}: search: got train.max_steps={}, expected 0 with halving, whose "
                        "rungs are of epochs",
                        file_.search_place, train.max_steps));
      if (train.schedule.name != ScheduleName::kConstant && train.schedule.steps == 0)
        fault(fmt::format(
            "{}: search: got train.schedule.name={} as long as the run (train.schedule.steps=0), "
            "expected a length of its own, since trials grow from rung to rung; set "
            "train.schedule.steps, as to the steps of {} epochs, or the schedule to constant",
            file_.search_place, name_of(train.schedule.name), train.epochs));
      if (train.epochs <= search.min_epochs)
        fault(
            fmt::format("{}: search: got min_epochs={} with train.epochs={}, expected more "
                        "epochs, those of the last rung",
                        file_.search_place, search.min_epochs, train.epochs));
    }
    sweep_.rungs = rung_epochs(search, sweep_.trials.front().config.train.epochs);
  }

  /// Trials that are the same count once.
  void name_trials() {
    std::set<std::string> names;
    std::vector<Trial> once;
    for (Trial& trial : sweep_.trials) {
      json facts = deciding_facts(trial.config, dataset_of(trial.config).hash());
      if (sweep_.rungs.front() != 0) facts["rungs"] = sweep_.rungs;
      Checksum sum;
      sum.text(to_text(facts));
      trial.hash = sum.hex().substr(0, 16);
      trial.config.run.dir = (sweep_.folder_of(trial) / "run").string();
      if (names.insert(trial.hash).second) once.push_back(std::move(trial));
    }
    sweep_.trials = std::move(once);
  }

  Sweep& sweep_;
  const SweepFile& file_;
  const std::vector<std::string>& overrides_;
  std::vector<std::string>& faults_;
  std::map<std::string, Dataset> datasets_;
  std::map<std::string, bool> orders_;
};

}  // namespace

Sweep load_sweep(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  Sweep sweep;
  std::vector<std::string> faults;
  sweep.file = read_sweep_file(path, faults);
  sweep.rungs = {0};
  if (faults.empty()) {
    sweep.objective = sweep_objective(sweep.file.objective);
    Loader(sweep, overrides, faults).load();
  }
  constexpr size_t kMostFaults = 20;
  if (faults.size() > kMostFaults) {
    faults[kMostFaults] = fmt::format("and {} more", faults.size() - kMostFaults);
    faults.resize(kMostFaults + 1);
  }
  if (!faults.empty()) throw UserError(fmt::format("{}", fmt::join(faults, "\n")));
  return sweep;
}

}  // namespace kt
