#include <yaml-cpp/yaml.h>

#include <nlohmann/json.hpp>

#include "io/config/reader.h"
#include "tests/fuzz/target.h"
#include "tests/support/declared_models.h"
#include "trainer/sweeps/space.h"
#include "trainer/sweeps/sweep_file.h"

namespace kt {
namespace {

/// The file again, of what was read of its parameters: values are the same when they are read a second time.
std::string text_of(const SweepFile& sweep) {
  std::string text = "objective: {metric: mse}\nparameters:\n";
  for (const Parameter& parameter : sweep.parameters) {
    if (parameter.kind != Parameter::Kind::kChoice) continue;
    text += fmt::format("  ? {}\n  :\n", nlohmann::json(parameter.key).dump());
    for (const std::string& value : parameter.values) text += fmt::format("    - {}\n", value);
  }
  return text;
}

void check_again(const SweepFile& sweep) {
  std::vector<Parameter> choices;
  for (const Parameter& parameter : sweep.parameters)
    if (parameter.kind == Parameter::Kind::kChoice) choices.push_back(parameter);
  if (choices.empty()) return;
  const std::string text = text_of(sweep);
  if (text.size() > (64 << 10)) return;
  std::vector<std::string> faults;
  const SweepFile again = read_sweep_file(fuzz::write("again.yaml", text), faults);
  KT_CHECK(faults.empty(), "{}\n{}", faults.front(), text);
  KT_CHECK(again.parameters.size() == choices.size(), "{}", text);
  for (size_t k = 0; k < choices.size(); ++k)
    KT_CHECK(again.parameters[k].key == choices[k].key &&
                 again.parameters[k].values == choices[k].values,
             "{}", text);
}

/// What a trial gives the configuration is read, or refused in words.
void check_trial(const SweepFile& sweep, const ParameterValues& values) {
  KT_CHECK(values.size() == sweep.parameters.size());
  std::vector<std::string> settings = sweep.set, places = sweep.set_places;
  for (size_t k = 0; k < values.size(); ++k) {
    const Parameter& parameter = sweep.parameters[k];
    KT_CHECK(values[k] || !parameter.when.empty(), "{}", parameter.key);
    if (!values[k]) continue;
    settings.push_back(parameter.key + "=" + *values[k]);
    places.push_back(parameter.place);
  }
  const ConfigReading reading = read_config("", "sweep.yaml", settings, declared_models(), places);
  for (const std::string& fault : reading.faults) fuzz::check_message(fault);
}

void run(std::string_view text) {
  std::vector<std::string> faults;
  SweepFile sweep = read_sweep_file(fuzz::write("sweep.yaml", text), faults);
  for (const std::string& fault : faults) fuzz::check_message(fault);
  if (!faults.empty()) return;
  KT_CHECK(!sweep.parameters.empty() && !sweep.objective.metric.empty());
  check_again(sweep);
  bool has_grid = true;
  for (Parameter& parameter : sweep.parameters) {
    has_grid = has_grid && parameter.kind == Parameter::Kind::kChoice;
    parameter.whole = parameter.key.starts_with("train.");
  }
  if (has_grid) {
    const auto grid = grid_of(sweep.parameters, 4);
    KT_CHECK(!grid.empty() && grid.size() <= 4);
    for (const ParameterValues& values : grid) check_trial(sweep, values);
  }
  for (int64_t trial = 0; trial < 2; ++trial)
    check_trial(sweep, draw_values(sweep.parameters, sweep.search.seed, trial));
}

}  // namespace
}  // namespace kt

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kt::run({reinterpret_cast<const char*>(data), size});
  return 0;
}
