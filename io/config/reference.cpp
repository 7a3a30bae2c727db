#include "io/config/reference.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/config/identity.h"
#include "io/config/keys.h"
#include "io/config/writers.h"

namespace kt {
namespace {

constexpr const char* kPreface = R"(# Configuration

This page is made from the source: `kuaitrain validate --reference > docs/configuration.md`; a test compares the two.

A configuration is a YAML file of the sections below. Any key can be set after it by its dotted path, and the last one
wins: `kuaitrain --config configs/ncf.yaml data.path=DATASET train.epochs=2`. An unknown key, a wrong type or a
contradiction is an error that names file and line; `kuaitrain validate F.yaml` shows all of them at once, or the
effective configuration. `configs/` has a file for each system.

*Identity*: `yes` where the key decides the result of a run. A folder that holds a run with another value is refused;
all other keys may change when a run is taken up again. `schedule`: part of it where the learning rate follows the
length of the run (`train.schedule.name` other than `constant` and `train.schedule.steps` 0).
)";
constexpr const char* kHeader =
    "\n| key | default | values | what it does | identity |\n|---|---|---|---|---|\n";

/// Text of a cell of a table.
std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|' || c == '<') out += '\\';
    out += c;
  }
  return out;
}

/// Whether keys are part of the identity of runs.
class Identity {
 public:
  explicit Identity(Config config) {
    usual_ = identity(config, "");
    config.train.schedule.name = ScheduleName::kLinear;
    of_schedule_ = identity(config, "");
  }
  const char* of(const std::string& key) const {
    return usual_.contains(key) ? "yes" : of_schedule_.contains(key) ? "schedule" : "no";
  }

 private:
  nlohmann::json usual_, of_schedule_;
};

std::string row(const Key& key, const char* identity) {
  return fmt::format("| `{}` | `{}` | {} | {} | {} |\n", key.path, yaml_value(key.write()),
                     cell(key.expected()), cell(key.use), identity);
}

}  // namespace

std::string configuration_reference(std::span<const ModelDeclaration> models) {
  Config defaults;
  defaults.model.name = models.front().name;
  const Identity identity(defaults);
  std::string out = kPreface, section;
  for (const Key& key : keys_of(defaults, models)) {
    const std::string of_key = key.path.substr(0, key.path.find('.'));
    if (of_key != section) out += fmt::format("\n## {}\n{}", of_key, kHeader);
    section = of_key;
    out += row(key, identity.of(key.path));
  }
  out +=
      "\n# Options of the systems\n\nKeys that exist with one `model.name`; what else it can be "
      "told is above. All are part "
      "of the identity.\n";
  for (const ModelDeclaration& model : models) {
    out += fmt::format("\n## {}\n\n{}.\n", model.name, cell(model.about));
    OptionValues options(model.options);
    if (!options.all.empty()) out += kHeader;
    for (const Key& key : keys_of(options)) out += row(key, "yes");
  }
  return out;
}

std::vector<std::string> key_paths(std::span<const ModelDeclaration> models) {
  std::vector<std::string> paths;
  const auto add = [&](const std::vector<Key>& keys) {
    for (const Key& key : keys)
      if (std::ranges::find(paths, key.path) == paths.end()) paths.push_back(key.path);
  };
  Config defaults;
  add(keys_of(defaults));
  for (const ModelDeclaration& model : models) {
    OptionValues options(model.options);
    add(keys_of(options));
  }
  return paths;
}

}  // namespace kt
