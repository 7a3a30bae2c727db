#include "io/config/writers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/emitter.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "io/config/keys.h"

namespace kt {
using nlohmann::json;

std::string yaml_value(const json& value) {
  if (value.is_string()) {
    YAML::Emitter emitter;
    emitter << value.get<std::string>();
    return emitter.c_str();
  }
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  if (value.is_array()) {
    std::vector<std::string> elements;
    for (const json& element : value) elements.push_back(yaml_value(element));
    return fmt::format("[{}]", fmt::join(elements, ", "));
  }
  return value.dump();
}

namespace {

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  std::istringstream stream(path);
  for (std::string part; std::getline(stream, part, '.');) parts.push_back(part);
  return parts;
}

std::string described(const Key& key) {
  return fmt::format("  {}: {}\n      {}; {}\n", key.path, yaml_value(key.write()), key.expected(),
                     key.use);
}

}  // namespace

std::string to_yaml(const Config& config) {
  Config copy = config;
  std::string out;
  std::vector<std::string> open;  // the sections the last line was in
  for (const Key& key : keys_of(copy)) {
    const std::vector<std::string> parts = split(key.path);
    size_t depth = 0;
    while (depth < open.size() && depth + 1 < parts.size() && open[depth] == parts[depth]) ++depth;
    open.resize(depth);
    for (; depth + 1 < parts.size(); ++depth) {
      out += fmt::format("{}{}:\n", std::string(2 * depth, ' '), parts[depth]);
      open.push_back(parts[depth]);
    }
    out += fmt::format("{}{}: {}\n", std::string(2 * depth, ' '), parts.back(),
                       yaml_value(key.write()));
  }
  return out;
}

json to_json(const Config& config) {
  Config copy = config;
  json out = json::object();
  for (const Key& key : keys_of(copy)) {
    json* node = &out;
    for (const std::string& part : split(key.path)) node = &(*node)[part];
    *node = key.write();
  }
  return out;
}

std::string describe_keys(std::span<const ModelDeclaration> models) {
  Config defaults;
  std::string out;
  defaults.model.name = models.front().name;
  for (const Key& key : keys_of(defaults, models)) out += described(key);
  out += "\nOptions of the models:\n";
  for (const ModelDeclaration& model : models) {
    out += fmt::format("  {}: {}{}\n", model.name, model.about,
                       model.options.empty() ? "; no options" : "");
    OptionValues options(model.options);
    for (const Key& key : keys_of(options)) out += described(key);
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> settings_of_all_ranks(const Config& config) {
  std::error_code ignored;
  const std::filesystem::path here = std::filesystem::current_path(ignored);
  Config copy = config;
  copy.run.dir = (here / config.run.dir).lexically_normal().string();
  const std::string& resume = config.checkpoint.resume;
  if (resume != "auto" && resume != "never")
    copy.checkpoint.resume = (here / resume).lexically_normal().string();
  std::vector<std::pair<std::string, std::string>> settings;
  for (const Key& key : keys_of(copy))
    if (key.path != "parallel.threads" && key.path != "parallel.simd" &&
        !is_in_section(key.path, "log"))
      settings.emplace_back(key.path, yaml_value(key.write()));
  return settings;
}

}  // namespace kt
