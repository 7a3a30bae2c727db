#include "trainer/sweeps/sweep_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "io/config/keys.h"
#include "io/config/values.h"
#include "io/config/yaml_text.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using values::Word;

constexpr int64_t kMostTrials = 100'000;

/// Whether a scalar without quotes is read as itself alone and in a list, as "a, b" and "-" are in one of them only.
bool stays_plain(const std::string& text) {
  const auto is_itself = [&](const YAML::Node& node) {
    return yaml::is_plain(node) && node.Scalar() == text;
  };
  try {
    const YAML::Node list = yaml::parse("[" + text + "]", yaml::kMostValueBytes, "");
    return list.IsSequence() && list.size() == 1 && is_itself(list[0]) &&
           is_itself(yaml::parse(text, yaml::kMostValueBytes, ""));
  } catch (const yaml::Refusal&) {
    return false;
  } catch (const YAML::Exception&) {
    return false;
  }
}

/// A node as YAML in one line, to be given as an override.
std::string flow_text(const YAML::Node& node) {
  std::vector<std::string> parts;
  if (node.IsSequence()) {
    for (const YAML::Node& element : node) parts.push_back(flow_text(element));
    return fmt::format("[{}]", fmt::join(parts, ", "));
  }
  if (node.IsMap()) {
    for (const auto& entry : node)
      parts.push_back(flow_text(entry.first) + ": " + flow_text(entry.second));
    return fmt::format("{{{}}}", fmt::join(parts, ", "));
  }
  if (node.IsNull()) return "null";
  const bool is_bare = yaml::is_plain(node) && stays_plain(node.Scalar());
  return is_bare ? node.Scalar() : nlohmann::json(node.Scalar()).dump();
}

class Reader {
 public:
  Reader(const fs::path& path, std::vector<std::string>& faults)
      : name_(path.string()), faults_(faults) {
    sweep_.path = path;
    sweep_.folder = fs::path("sweeps") / path.stem();
    sweep_.objective.place = sweep_.search_place = name_ + ":1";
  }

  SweepFile read() {
    if (const auto text = yaml::read_file(name_))
      yaml::read_document(
          *text, name_, [this](const YAML::Node& document) { read_document(document); }, faults_,
          yaml::Aliases::kRefused);
    else
      fault(name_, "got no readable file, expected that of a sweep; check the path");
    return sweep_;
  }

 private:
  struct Entry {
    std::string path;  // of the key, with its section
    std::string place;
    const YAML::Node& value;
  };
  using Take = std::function<void(const Entry&)>;
  struct Field {
    const char* name;
    Take take;
  };

  void fault(const std::string& at, const std::string& message) {
    faults_.push_back(at + ": " + message);
  }
  std::string place(const YAML::Mark& mark) const { return yaml::place(name_, mark); }
  void refuse(const Entry& entry, const std::string& expected) {
    fault(entry.place,
          fmt::format("{}: got {}, expected {}", entry.path, yaml::got(entry.value), expected));
  }

  /// Every entry of a section, whatever it is named, once.
  void each(const YAML::Node& map, const std::string& section, const Take& take) {
    std::set<std::string> seen;
    for (const auto& entry : map) {
      const std::string at = place(entry.first.Mark());
      if (!entry.first.IsScalar()) {
        fault(at, fmt::format("got {} for a key, expected its name", yaml::got(entry.first)));
        continue;
      }
      const std::string& name = entry.first.Scalar();
      const std::string path = section.empty() ? name : section + ": " + name;
      if (!seen.insert(name).second)
        fault(at, fmt::format("{}: got it a second time, expected once", yaml::shown(path)));
      else
        take({path, at, entry.second});
    }
  }

  void fields(const YAML::Node& map, const std::string& section, const std::vector<Field>& known) {
    each(map, section, [&](const Entry& entry) {
      const std::string name = entry.path.substr(section.empty() ? 0 : section.size() + 2);
      for (const Field& field : known)
        if (name == field.name) return field.take(entry);
      std::vector<std::string_view> names;
      for (const Field& field : known) names.push_back(field.name);
      fault(entry.place, fmt::format("got the unknown key {}, expected a known one; the nearest is "
                                     "{} (docs/sweeps.md shows all)",
                                     yaml::shown(entry.path), nearest_name(names, name)));
    });
  }

  Take section(std::string name, std::vector<Field> known) {
    return [this, name = std::move(name), known = std::move(known)](const Entry& entry) {
      if (!entry.value.IsMap())
        return refuse(entry, fmt::format("a section with keys as {}", known.front().name));
      fields(entry.value, name, known);
    };
  }

  template <class T, class Allowed>
  Take value(T& out, Allowed allowed) {
    return [this, &out, allowed](const Entry& entry) {
      if (yaml::is_tagged(entry.value) || !values::read(entry.value, allowed, out))
        refuse(entry, values::expected(out, allowed));
    };
  }

  void read_document(const YAML::Node& document) {
    if (!document.IsMap())
      return fault(place(document.Mark()),
                   fmt::format("got {}, expected the keys of a sweep, as 'config: ncf.yaml'",
                               yaml::got(document)));
    std::string config, folder;
    const auto count = [](int64_t low, int64_t high) { return values::Range<int64_t>{low, high}; };
    const values::Path path{.may_be_empty = false};
    auto& trials = sweep_.trials;
    fields(document, "",
           {{"config", value(config, path)},
            {"folder", value(folder, path)},
            {"set", [this](const Entry& entry) { read_set(entry); }},
            {"objective", [this](const Entry& entry) { read_objective(entry); }},
            {"search", [this](const Entry& entry) { read_search(entry); }},
            {"parameters", [this](const Entry& entry) { read_parameters(entry); }},
            {"max_trials", value(sweep_.max_trials, count(1, kMostTrials))},
            {"trials", section("trials", {{"ranks", value(trials.ranks, count(1, 100'000))},
                                          {"at_once", value(trials.at_once, count(1, 1000))},
                                          {"retries", value(trials.retries, count(0, 100))},
                                          {"launcher", value(trials.launcher, path)}})}});
    if (!config.empty()) sweep_.config = (sweep_.path.parent_path() / config).lexically_normal();
    if (!folder.empty()) sweep_.folder = folder;
    if (sweep_.objective.metric.empty() && faults_.empty())
      fault(name_, "objective: got none, expected as 'objective: {metric: mse}'");
    if (sweep_.parameters.empty() && faults_.empty())
      fault(name_,
            "parameters: got none, so there is nothing to sweep over; expected keys of the "
            "configuration with values, as '  train.optimizer.lr: [1e-3, 1e-2]'");
  }

  void read_set(const Entry& set) {
    if (!set.value.IsMap()) return refuse(set, "keys of the configuration with their values");
    each(set.value, "set", [&](const Entry& entry) {
      sweep_.set.push_back(entry.path.substr(5) + "=" + flow_text(entry.value));
      sweep_.set_places.push_back(entry.place);
    });
  }

  void read_objective(const Entry& entry) {
    auto& objective = sweep_.objective;
    objective.place = entry.place;
    section("objective", {{"metric", value(objective.metric, values::Path{false})},
                          {"goal", value(objective.goal, Word{{"min", "max"}})}})(entry);
  }

  void read_search(const Entry& entry) {
    Search& search = sweep_.search;
    sweep_.search_place = entry.place;
    std::string kind;
    std::set<std::string> given;
    const auto number = [&](const char* name, int64_t& out, int64_t low, int64_t high) {
      return Field{name,
                   [&, name, take = value(out, values::Range<int64_t>{low, high})](const Entry& e) {
                     given.insert(name);
                     take(e);
                   }};
    };
    section("search", {{"kind", value(kind, Word{{"grid", "random", "halving"}})},
                       number("trials", search.trials, 1, kMostTrials),
                       number("seed", search.seed, 0, std::numeric_limits<int64_t>::max()),
                       number("eta", search.eta, 2, 100),
                       number("min_epochs", search.min_epochs, 1, 1'000'000)})(entry);
    if (kind.empty()) {
      if (faults_.empty())
        fault(entry.place, "search: got no kind, expected grid or random or halving");
      return;
    }
    search.kind = kind == "random"    ? SearchKind::kRandom
                  : kind == "halving" ? SearchKind::kHalving
                                      : SearchKind::kGrid;
    const auto only = [&](const char* name, bool allowed, const char* with) {
      if (given.contains(name) && !allowed)
        fault(
            entry.place,
            fmt::format("search: got {} with the kind {}, expected it with {} alone; leave it out",
                        name, kind, with));
    };
    const bool halving = search.kind == SearchKind::kHalving;
    only("trials", search.kind != SearchKind::kGrid, "random or halving");
    only("seed", search.trials > 0, "a number of trials that are drawn");
    only("eta", halving, "halving");
    only("min_epochs", halving, "halving");
    if (search.kind == SearchKind::kRandom && search.trials == 0)
      fault(entry.place,
            "search: got no number of trials, expected it with the kind random; as "
            "'trials: 24'");
  }

  void read_parameters(const Entry& section) {
    if (!section.value.IsMap())
      return refuse(section,
                    "keys of the configuration with values, as '  train.optimizer.lr: "
                    "[1e-3, 1e-2]'");
    each(section.value, "parameters", [&](const Entry& entry) {
      Parameter parameter{.key = entry.path.substr(12), .place = entry.place};
      const size_t before = faults_.size();
      if (entry.value.IsMap())
        read_described(entry, parameter);
      else
        read_choice(entry, entry.value, parameter);
      if (faults_.size() == before) sweep_.parameters.push_back(std::move(parameter));
    });
    if (sweep_.parameters.empty() && faults_.empty())
      fault(section.place,
            "parameters: got none, so there is nothing to sweep over; expected "
            "keys of the configuration with values");
  }

  void read_choice(const Entry& entry, const YAML::Node& list, Parameter& parameter) {
    if (!list.IsSequence() || list.size() == 0)
      return refuse(entry,
                    "a list of at least one value, or {uniform: [low, high]}, {log_uniform: [low, "
                    "high]} or {values: [...], when: {...}}");
    for (const YAML::Node& element : list) parameter.values.push_back(flow_text(element));
  }

  void read_described(const Entry& entry, Parameter& parameter) {
    int kinds = 0;
    const auto range = [&](Parameter::Kind kind) {
      return [this, &kinds, &parameter, kind](const Entry& e) {
        ++kinds;
        parameter.kind = kind;
        const values::Range<double> any{kind == Parameter::Kind::kUniform ? -1e300 : 1e-300, 1e300};
        const bool read = e.value.IsSequence() && e.value.size() == 2 &&
                          values::read(e.value[0], any, parameter.low) &&
                          values::read(e.value[1], any, parameter.high);
        if (!read || parameter.low >= parameter.high)
          refuse(e, kind == Parameter::Kind::kUniform ? "two numbers, the lower one first"
                                                      : "two numbers above 0, the lower one first");
      };
    };
    const size_t before = faults_.size();
    section(entry.path, {{"values",
                          [&](const Entry& e) {
                            ++kinds;
                            read_choice(e, e.value, parameter);
                          }},
                         {"uniform", range(Parameter::Kind::kUniform)},
                         {"log_uniform", range(Parameter::Kind::kLogUniform)},
                         {"when", [&](const Entry& e) { read_when(e, parameter); }}})(entry);
    if (kinds != 1 && faults_.size() == before)
      fault(entry.place, fmt::format("{}: got {} of values, uniform and log_uniform, expected one",
                                     entry.path, kinds));
  }

  void read_when(const Entry& entry, Parameter& parameter) {
    const YAML::Node& map = entry.value;
    if (!map.IsMap() || map.size() != 1 || !map.begin()->first.IsScalar())
      return refuse(entry, "one parameter and its value, as {model.name: mf}");
    const YAML::Node value = map.begin()->second;
    parameter.when = map.begin()->first.Scalar();
    if (value.IsSequence())
      for (const YAML::Node& element : value) parameter.when_values.push_back(flow_text(element));
    else
      parameter.when_values = {flow_text(value)};
    const auto refuse_when = [&](const std::string& expected) {
      fault(entry.place,
            fmt::format("{}: got {}, expected {}", entry.path, flow_text(map), expected));
    };
    const auto other = std::ranges::find(sweep_.parameters, parameter.when, &Parameter::key);
    if (other == sweep_.parameters.end() || other->kind != Parameter::Kind::kChoice)
      return refuse_when("a parameter above this one that is a list of values");
    for (const std::string& wanted : parameter.when_values)
      if (std::ranges::find(other->values, wanted) == other->values.end())
        return refuse_when(fmt::format("values of {} as they are written there: {}", parameter.when,
                                       fmt::join(other->values, ", ")));
  }

  std::string name_;
  std::vector<std::string>& faults_;
  SweepFile sweep_;
};

}  // namespace

SweepFile read_sweep_file(const fs::path& path, std::vector<std::string>& faults) {
  return Reader(path, faults).read();
}

}  // namespace kt
