#include "io/config/reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "io/config/checks.h"
#include "io/config/keys.h"
#include "io/config/yaml_text.h"
#include "io/files/shipped_file.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class Reader {
 public:
  /// Without a `model` options of all models are passed over.
  Reader(ConfigReading& reading, std::span<const ModelDeclaration> models,
         const ModelDeclaration* model)
      : reading_(reading), model_(model) {
    Config::Model& chosen = reading.config.model;
    chosen.name = model == nullptr ? models.front().name : model->name;
    if (model != nullptr) chosen.options = OptionValues(model->options);
    keys_ = keys_of(reading.config, models);
    for (const ModelDeclaration& declared : models)
      for (const OptionDeclaration& option : declared.options)
        models_with_["model." + option.path].push_back(declared.name);
  }

  void read(const std::string& text, const std::string& name,
            const std::vector<std::string>& overrides, std::span<const std::string> places) {
    read_file(text, name);
    for (size_t k = 0; k < overrides.size(); ++k)
      read_override(overrides[k], k < places.size() ? places[k] : "command line");
  }

  void check_contradictions() {
    for (const auto& [paths, wanted] : contradictions_of(reading_.config))
      contradiction(paths, wanted);
  }

  /// Whether it was given a value that it cannot have.
  bool refused(const std::string& path) const { return refused_.contains(path); }

 private:
  void read_file(const std::string& text, const std::string& name) {
    file_ = name;
    yaml::read_document(
        text, name,
        [this](const YAML::Node& document) {
          if (document.IsNull()) return;
          if (document.IsMap()) return read_section("", document);
          fault(place(document.Mark()),
                fmt::format(
                    "got {}, expected sections of keys, as 'train:' and below it '  epochs: 5'",
                    yaml::got(document)));
        },
        reading_.faults);
  }

  void read_override(const std::string& argument, const std::string& place) {
    const std::string at = place + ": " + yaml::shown(argument);
    overrides_.insert(at);
    const size_t equals = argument.find('=');
    if (equals == std::string::npos || equals == 0) {
      const bool is_file = argument.ends_with(".yaml") || argument.ends_with(".yml");
      fault(at,
            fmt::format("got no 'key=value', expected as train.epochs=5; {}",
                        is_file ? "a configuration is named by --config " + yaml::shown(argument)
                                : "add '=' and a value"));
      return;
    }
    const std::string path = argument.substr(0, equals);
    const std::string value = argument.substr(equals + 1);
    const Key* key = find(path);
    if (key == nullptr) {
      if (models_with_.contains(path))
        option_of_others(path, at);
      else if (is_section(path))
        fault(at, fmt::format("{} is a section, expected a key of it; name one, as {}", path,
                              first_key_of(path)));
      else
        fault(at, unknown_key(path));
      return;
    }
    try {
      if (value.empty()) return set(*key, at, YAML::Node(std::string()));
      const YAML::Node node = yaml::parse(value, yaml::kMostValueBytes, "");
      if (!yaml::is_whole(node, value))
        refuse(*key, at,
               fmt::format("{}: got a value that YAML reads as {}, expected {}; put it in "
                           "quotes that reach the program, as '{}=\"...\"'",
                           path, yaml::got(node), key->expected(), path));
      else
        set(*key, at, node);
    } catch (const yaml::Refusal& refusal) {
      refuse(*key, at, fmt::format("{}: {}", path, refusal.message));
    } catch (const YAML::Exception& error) {
      refuse(*key, at,
             fmt::format("got a value that is no YAML ({}), expected {}; put it in quotes",
                         error.msg, key->expected()));
    }
  }

  void fault(const std::string& at, const std::string& message) {
    reading_.faults.push_back(at + ": " + message);
  }

  void refuse(const Key& key, const std::string& at, const std::string& message) {
    refused_.insert(key.path);
    fault(at, message);
  }

  std::string place(const YAML::Mark& mark) const { return yaml::place(file_, mark); }

  const Key* find(const std::string& path) const {
    for (const Key& key : keys_)
      if (key.path == path) return &key;
    return nullptr;
  }

  bool is_section(const std::string& path) const { return !first_key_of(path).empty(); }

  std::string first_key_of(const std::string& section) const {
    for (const Key& key : keys_)
      if (is_in_section(key.path, section)) return key.path;
    for (const auto& [path, names] : models_with_)
      if (is_in_section(path, section)) return path;
    return {};
  }

  std::string unknown_key(const std::string& path) const {
    std::vector<std::string_view> known;
    for (const Key& key : keys_) known.push_back(key.path);
    return fmt::format(
        "got the unknown key {}, expected a known one; the nearest is {} (kuaitrain validate "
        "--help lists all)",
        yaml::shown(path), nearest_name(known, path));
  }

  void option_of_others(const std::string& path, const std::string& at) {
    if (model_ == nullptr) return;
    std::vector<std::string> own;
    for (const OptionDeclaration& option : model_->options) own.push_back("model." + option.path);
    fault(at, fmt::format(
                  "{}: got an option of {}, expected {} with model.name={}; leave it out, or "
                  "set model.name to a model that has it",
                  path, fmt::join(models_with_.at(path), " and "),
                  own.empty() ? "none" : fmt::format("{}", fmt::join(own, " or ")), model_->name));
  }

  void read_section(const std::string& section, const YAML::Node& map) {
    for (const auto& entry : map) {
      const YAML::Node& name = entry.first;
      const YAML::Node& value = entry.second;
      const std::string at = place(name.Mark());
      if (!name.IsScalar()) {
        fault(at, fmt::format("got {} for a key, expected its name", yaml::got(name)));
        continue;
      }
      const std::string path = section.empty() ? name.Scalar() : section + "." + name.Scalar();
      const auto [seen, is_new] = first_line_.emplace(path, name.Mark().line + 1);
      if (!is_new) {
        fault(at, fmt::format("{}: got it a second time, expected once; the first is in line {}",
                              path, seen->second));
        continue;
      }
      if (const Key* key = find(path)) {
        set(*key, at, value);
      } else if (models_with_.contains(path)) {
        option_of_others(path, at);
      } else if (!is_section(path)) {
        fault(at, unknown_key(path));
      } else if (value.IsMap()) {
        read_section(path, value);
      } else if (!value.IsNull()) {  // a section whose keys are all commented out
        fault(at, fmt::format("{}: got {}, expected a section; write its keys below it, as {}",
                              path, yaml::got(value), first_key_of(path)));
      }
    }
  }

  void set(const Key& key, const std::string& at, const YAML::Node& value) {
    places_[key.path] = at;
    if (!yaml::is_tagged(value) && key.read(value)) return;
    refuse(key, at,
           fmt::format("{}: got {}, expected {}", key.path, yaml::got(value), key.expected()));
  }

  /// `paths`: the keys that cannot stand together; the place is the one given last.
  void contradiction(const std::vector<std::string>& paths, const std::string& wanted) {
    std::string at = file_;
    std::vector<std::string> settings;
    for (const std::string& path : paths) {
      settings.push_back(fmt::format("{}={}", path, text_of(find(path)->write())));
      const auto given = places_.find(path);
      if (given != places_.end() && (at == file_ || overrides_.contains(given->second)))
        at = given->second;
    }
    fault(at,
          fmt::format("{}: got {}, expected {}", paths[0], fmt::join(settings, " with "), wanted));
  }

  static std::string text_of(const json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  }

  ConfigReading& reading_;
  const ModelDeclaration* model_;
  std::vector<Key> keys_;
  std::map<std::string, std::vector<std::string>> models_with_;  // by key of an option
  std::string file_;
  std::map<std::string, int>
      first_line_;  // of every key and section of the file, however it is spelt
  std::map<std::string, std::string> places_;
  std::set<std::string> overrides_;  // the places that are theirs
  std::set<std::string> refused_;
};

/// The model that a configuration names, which decides what options there are; null for none of `models`.
const ModelDeclaration* named_model(const std::string& text, const fs::path& name,
                                    const std::vector<std::string>& overrides,
                                    std::span<const ModelDeclaration> models) {
  ConfigReading reading;
  Reader reader(reading, models, nullptr);
  reader.read(text, name.string(), overrides, {});
  if (reader.refused("model.name")) return nullptr;
  return &*std::ranges::find(models, reading.config.model.name, &ModelDeclaration::name);
}

}  // namespace

fs::path default_config_path() {
  return shipped_file("configs/ncf.yaml", "the default configuration", "name one with --config");
}

ConfigReading read_config(const std::string& text, const fs::path& name,
                          const std::vector<std::string>& overrides,
                          std::span<const ModelDeclaration> models,
                          std::span<const std::string> places) {
  KT_CHECK(!models.empty(), "no model is declared");
  ConfigReading reading;
  Reader reader(reading, models, named_model(text, name, overrides, models));
  reader.read(text, name.string(), overrides, places);
  if (reading.faults.empty()) reader.check_contradictions();
  if (reading.config.run.dir.empty())
    reading.config.run.dir = (fs::path("runs") / name.stem()).string();
  return reading;
}

ConfigReading read_config_file(const fs::path& file, const std::vector<std::string>& overrides,
                               std::span<const ModelDeclaration> models,
                               std::span<const std::string> places) {
  const fs::path path = file.empty() ? default_config_path() : file;
  if (const auto text = yaml::read_file(path))
    return read_config(*text, path, overrides, models, places);
  ConfigReading reading;
  reading.faults.push_back(
      fmt::format("{}: got no readable file, expected a configuration; check the path (the "
                  "program's own are in configs/)",
                  path.string()));
  return reading;
}

Config load_config(const fs::path& file, const std::vector<std::string>& overrides,
                   std::span<const ModelDeclaration> models) {
  ConfigReading reading = read_config_file(file, overrides, models);
  if (!reading.faults.empty()) throw UserError(fmt::format("{}", fmt::join(reading.faults, "\n")));
  return std::move(reading.config);
}

}  // namespace kt
