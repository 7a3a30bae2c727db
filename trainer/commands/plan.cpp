#include "trainer/planning/plan.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "io/config/config.h"
#include "io/config/reader.h"
#include "io/config/writers.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/mpi_session.h"
#include "models/systems/registry.h"
#include "trainer/commands/commands.h"
#include "trainer/planning/plan_inputs.h"
#include "trainer/run/cleaning.h"

namespace kt {
namespace {

using nlohmann::json;

struct PlanArguments {
  std::vector<std::string> config_and_overrides;
  int64_t ranks = 0;
  int64_t nodes = 0;  // 0: as few as hold the ranks
  std::string device = "cpu";
  double memory_gb = 0;  // 0: of this machine
  int64_t cores = 0;     // likewise
  AssumedCounts counts;
};

Config config_of(const PlanArguments& arguments, std::string& file) {
  std::vector<std::string> overrides;
  for (const std::string& argument : arguments.config_and_overrides) {
    if (argument.find('=') != std::string::npos) {
      overrides.push_back(argument);
    } else if (file.empty()) {
      file = argument;
    } else {
      user_error("plan: two configurations, {} and {}; expected one, then key.path=value", file,
                 argument);
    }
  }
  Config config = load_config(file, overrides, model_declarations());
  if (file.empty()) file = default_config_path().filename().string();
  return config;
}

Device device_of(const PlanArguments& arguments) {
  Device device = find_device(arguments.device);
  if (device.gpu && (arguments.memory_gb > 0 || arguments.cores > 0))
    user_error("--memory, --cores: describe a node of cpus, but --device is {}; leave them out",
               device.name);
  if (arguments.memory_gb > 0)
    device.memory_bytes = static_cast<int64_t>(arguments.memory_gb * 1e9);
  if (arguments.cores > 0) device.per_node = arguments.cores;
  if (arguments.memory_gb > 0 || arguments.cores > 0) device.description = "a node as described";
  return device;
}

PlanInputs inputs_of(const PlanArguments& arguments, std::string& file) {
  return plan_inputs(config_of(arguments, file), device_of(arguments), arguments.ranks,
                     arguments.nodes, arguments.counts);
}

const char* kind_of(const ParameterSpec& spec) {
  if (spec.computed) return "copies";
  switch (spec.kind) {
    case ParameterKind::kUserTable:
      return "user table";
    case ParameterKind::kItemTable:
      return "item table";
    case ParameterKind::kSharedRows:
      return "shared rows";
    default:
      return "dense";
  }
}

const char* name_of(MemoryPhase phase) {
  switch (phase) {
    case MemoryPhase::kAlways:
      return "always";
    case MemoryPhase::kTraining:
      return "training";
    case MemoryPhase::kLoading:
      return "loading";
    case MemoryPhase::kStep:
      return "step";
    case MemoryPhase::kStepAlone:
      return "step alone";
    case MemoryPhase::kCheckpoint:
      return "checkpoint";
    case MemoryPhase::kValidation:
      return "validation";
    default:
      return "evaluation";
  }
}

constexpr const char* kOverlap = "nothing overlaps: each is waited for before the step goes on";
constexpr const char* kDeviceEstimate =
    "by what a prototype's kernels attained on an H200 (docs/plan.md)";
constexpr const char* kTorchDeviceEstimate =
    "by launches as an H200 took them, and data sheets (docs/plan.md)";
constexpr const char* kCpuEstimate =
    "from costs measured on one machine (docs/plan.md): half to twice on others";

bool through_libtorch(const PlanInputs& inputs) {
  return inputs.device.gpu && inputs.config.model.engine == EngineName::kTorch;
}
bool on_devices(const PlanInputs& inputs) { return inputs.device.gpu && !through_libtorch(inputs); }

const char* estimate_of(const PlanInputs& inputs) {
  return on_devices(inputs)         ? kDeviceEstimate
         : through_libtorch(inputs) ? kTorchDeviceEstimate
                                    : kCpuEstimate;
}

const RankPlan& slowest_of(const Plan& plan) {
  return *std::max_element(plan.ranks.begin(), plan.ranks.end(), [](const auto& a, const auto& b) {
    return a.compute_seconds < b.compute_seconds;
  });
}

// --- Text ------------------------------------------------------------------------------------------------

std::string grouped(int64_t n) {
  std::string digits = fmt::format("{}", n);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), 1, ',');
  return digits;
}

std::string scaled(double value, const char* unit) {
  constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P"};
  size_t prefix = 0;
  for (; value >= 999.5 && prefix + 1 < std::size(kPrefixes); ++prefix) value /= 1000;
  const int digits = prefix == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f} {}{}", value, digits, kPrefixes[prefix], unit);
}

std::string seconds_text(double s) {
  if (s >= 100) return fmt::format("{:.0f} s", s);
  if (s >= 1) return fmt::format("{:.1f} s", s);
  if (s >= 1e-3) return fmt::format("{:.2f} ms", 1e3 * s);
  return fmt::format("{:.1f} us", 1e6 * s);
}

std::string range_text(Range range) {
  if (range.size() == 0) return "none";
  return range.size() == 1 ? grouped(range.begin)
                           : fmt::format("{}-{}", grouped(range.begin), grouped(range.end - 1));
}

/// Rows of a table that shows at most this many ranks: the first and the last.
constexpr int64_t kShownRanks = 16;

void log_placement(const PlanInputs& inputs, const Plan& plan) {
  const auto item_table =
      std::find_if(inputs.parameters.begin(), inputs.parameters.end(),
                   [](const auto& spec) { return spec.kind == ParameterKind::kItemTable; });
  log_info("\nplacement");
  log_info("  {:>4} {:>4} {:>11} {:>13} {:>7} {:>9} {:>23}", "rank", "node", "shards", "rows",
           "share", "users", "video rows");
  const auto total = static_cast<double>(
      std::accumulate(inputs.shard_rows.begin(), inputs.shard_rows.end(), int64_t{0}));
  for (int64_t r = 0; r < inputs.ranks; ++r) {
    if (inputs.ranks > kShownRanks && r == kShownRanks / 2) {
      log_info("   ...  {} more, all in --json", inputs.ranks - kShownRanks);
      r = inputs.ranks - kShownRanks / 2;
    }
    const RankPlan& rank = plan.ranks[r];
    log_info("  {:>4} {:>4} {:>11} {:>13} {:>5.2f} % {:>9} {:>23}", r, rank.node,
             range_text(rank.shards), grouped(rank.rows),
             100 * static_cast<double>(rank.rows) / total, grouped(rank.users),
             item_table == inputs.parameters.end()
                 ? "none"
                 : range_text(rank.owned[item_table - inputs.parameters.begin()]));
  }
  log_info("  largest shard: {} with {:.2f} % of the rows, so at most {:.1f} times one rank;",
           plan.largest_shard, 100 * plan.largest_share, 1 / plan.largest_share);
  log_info("  {} rank{}: at most {:.2f} times", inputs.ranks, inputs.ranks == 1 ? "" : "s",
           plan.speed_up_bound);
  if (cleans(inputs.config.data))
    log_info("  rows as imported: what data.filter and data.repeats leave out is seen at load");
  if (inputs.group > 1)
    log_info("  rows as imported: which of them are positive, and train, is seen at load");
  for (int64_t r = 0; r < inputs.ranks; ++r)
    if (plan.ranks[r].rows == 0) log_warning("rank {} has no rows: its shards are empty", r);
}

void log_parameters(const PlanInputs& inputs, const Plan& plan) {
  log_info("\nparameters: {}", grouped(plan.parameters));
  log_info("  {:<18}  {:<11}  {:>15}  {:>8}  {:>15}", "array", "kind", "rows x columns", "bytes",
           "rows of a rank");
  for (size_t a = 0; a < inputs.parameters.size(); ++a) {
    const ParameterSpec& spec = inputs.parameters[a];
    int64_t least = spec.rows, most = 0;
    for (const RankPlan& rank : plan.ranks) {
      least = std::min(least, rank.owned[a].size());
      most = std::max(most, rank.owned[a].size());
    }
    log_info("  {:<18}  {:<11}  {:>15}  {:>8}  {:>15}", spec.name, kind_of(spec),
             fmt::format("{} x {}", grouped(spec.rows), spec.cols),
             scaled(static_cast<double>(4 * spec.size()), "B"),
             least == most ? grouped(least) : fmt::format("{}-{}", grouped(least), grouped(most)));
  }
  if (inputs.config.parallel.reduce == Reduce::kFast)
    log_info("  reduce is fast: every rank holds item tables and dense arrays whole");
}

void log_memory(const PlanInputs& inputs, const Plan& plan) {
  const auto fullest = std::max_element(
      plan.ranks.begin(), plan.ranks.end(),
      [](const auto& a, const auto& b) { return peak_bytes(a.memory) < peak_bytes(b.memory); });
  log_info("\nmemory of rank {}, which needs most", fullest - plan.ranks.begin());
  for (const MemoryUse& use : fullest->memory)
    log_info("  {:<33}  {:>8}  {}", use.what, scaled(static_cast<double>(use.bytes), "B"),
             name_of(use.phase));
  log_info("  {:<33}  {:>8}  always, and the larger rest", "peak",
           scaled(static_cast<double>(peak_bytes(fullest->memory)), "B"));
  const std::string needed = scaled(static_cast<double>(plan.memory_bytes), "B");
  const std::string has = scaled(static_cast<double>(inputs.device.memory_bytes), "B");
  const char* place = inputs.device.gpu ? "device" : "node";
  if (plan.fits) {
    log_info("  fits: the fullest {} needs {} of {}", place, needed, has);
    return;
  }
  const int64_t a_node = (inputs.ranks + inputs.nodes - 1) / inputs.nodes;
  const std::string advice =
      plan.ranks_needed > 0
          ? fmt::format("needs at least {} ranks, at most {} a node", plan.ranks_needed, a_node)
          : fmt::format("no number of ranks up to {} does, with {} a node",
                        inputs.shard_rows.size(), a_node);
  log_warning("does not fit: the fullest {} needs {}, but has {}: {}", place, needed, has, advice);
}

void log_collectives(const PlanInputs& inputs, const Plan& plan) {
  log_info("\ncollectives of a step: the most that a rank sends and receives");
  log_info("  {:<10} {:<20} {:>8} {:>8} {:>8} {:>8} {:>9}", "operation", "of", "messages", "sent",
           "received", "read", "time");
  const auto line = [](const std::string& operation, const std::string& what, const Traffic& t,
                       double seconds) {
    log_info("  {:<10} {:<20} {:>8.5g} {:>8} {:>8} {:>8} {:>9}", operation, what, t.messages,
             scaled(t.sent_bytes, "B"), scaled(t.received_bytes, "B"), scaled(t.read_bytes, "B"),
             seconds_text(seconds));
  };
  const auto several = [](Traffic t, int64_t times) {
    const auto n = static_cast<double>(times);
    t.messages *= n, t.sent_bytes *= n, t.received_bytes *= n, t.read_bytes *= n;
    return t;
  };
  std::vector<Traffic> sums(inputs.ranks);
  const auto most = [](const std::vector<Traffic>& ranks) {
    Traffic result;
    for (const Traffic& t : ranks) {
      result.messages = std::max(result.messages, t.messages);
      result.sent_bytes = std::max(result.sent_bytes, t.sent_bytes);
      result.received_bytes = std::max(result.received_bytes, t.received_bytes);
      result.read_bytes = std::max(result.read_bytes, t.read_bytes);
    }
    return result;
  };
  for (const Collective& collective : plan.collectives) {
    const int64_t times = collective.times;
    line(collective.operation,
         times > 1 ? fmt::format("{} x {}", times, collective.what) : collective.what,
         several(most(collective.ranks), times), static_cast<double>(times) * collective.seconds);
    for (int64_t r = 0; r < inputs.ranks; ++r) {
      const Traffic t = several(collective.ranks[r], times);
      sums[r].messages += t.messages;
      sums[r].sent_bytes += t.sent_bytes;
      sums[r].received_bytes += t.received_bytes;
      sums[r].read_bytes += t.read_bytes;
    }
  }
  line("all", "", most(sums), plan.communication_seconds);
  log_info("  {}", kOverlap);
  log_info("  {} waits a step, {} rounds of messages: {} before any byte", grouped(plan.waits),
           grouped(plan.rounds), seconds_text(plan.waiting_seconds));
}

double samples_per_second(const Plan& plan) {
  return static_cast<double>(plan.training_rows) / plan.epoch_and_steps_seconds();
}

/// None but on devices.
void log_kernels(const RankPlan& rank) {
  if (rank.kernels.empty()) return;
  log_info("  {:<24}  {:>8}  {:>11}  {:>9}  {:>10}", "kernel", "launches", "operations", "memory",
           "time");
  for (const DeviceKernel& kernel : rank.kernels)
    log_info("  {:<24}  {:>8}  {:>11}  {:>9}  {:>10}", kernel.name, kernel.launches,
             scaled(kernel.operations, ""), scaled(kernel.bytes, "B"),
             seconds_text(kernel.seconds));
}

void log_step(const PlanInputs& inputs, const Plan& plan, double speed_up) {
  if (inputs.means)
    log_info("\nexpected time of the one step over all {} rows", grouped(plan.training_rows));
  else
    log_info("\nexpected time of a step of {} samples; {} steps an epoch",
             grouped(inputs.config.train.global_batch), grouped(plan.steps));
  const auto row = [](const std::string& name, const std::string& value) {
    log_info("  {:<30}  {:>12}", name, value);
  };
  const RankPlan& slowest = slowest_of(plan);
  for (size_t k = 0; k < plan.busy_parts.size(); ++k)
    row(plan.busy_parts[k], seconds_text(slowest.busy_seconds[k]));
  log_kernels(slowest);
  row(through_libtorch(inputs) ? "the longest of these" : "computing, slowest rank",
      seconds_text(plan.compute_seconds));
  row("communication, all exposed", seconds_text(plan.communication_seconds));
  row("step", seconds_text(plan.step_seconds()));
  row("exposed communication",
      fmt::format("{:.1f} %", 100 * plan.communication_seconds / plan.step_seconds()));
  if (!inputs.means) row("arithmetic, all ranks", scaled(plan.flops, "FLOP"));
  row("samples/s", scaled(samples_per_second(plan), ""));
  if (!inputs.means) row("an epoch", seconds_text(plan.epoch_and_steps_seconds()));
  row("times as fast as one rank", fmt::format("{:.2f}", speed_up));
  log_info("  {}", estimate_of(inputs));
  if (plan.oversubscription > 1)
    log_warning("{:.3g} threads a core ({} cores a node): times are stretched by that",
                plan.oversubscription, inputs.device.per_node);
}

void log_scaling(const PlanInputs& inputs, const std::vector<ScalingPoint>& points) {
  const int64_t a_node = (inputs.ranks + inputs.nodes - 1) / inputs.nodes;
  log_info("\nscaling, at most {} rank{} a node: the fullest rank and its step", a_node,
           a_node == 1 ? "" : "s");
  log_info("  {:>5} {:>5} {:>8} {:>8} {:>5} {:>6} {:>9} {:>11} {:>9}", "ranks", "nodes", "memory",
           "comes in", "waits", "rounds", "computing", "communicat.", "times");
  for (const ScalingPoint& p : points)
    log_info("  {:>5} {:>5} {:>8} {:>8} {:>5} {:>6} {:>9} {:>11} {:>9.2f}", p.ranks, p.nodes,
             scaled(static_cast<double>(p.peak_bytes), "B"), scaled(p.incoming_bytes, "B"), p.waits,
             p.rounds, seconds_text(p.compute_seconds), seconds_text(p.communication_seconds),
             points.front().step_seconds() / p.step_seconds());
  const auto end = std::ranges::find_if(points, &ScalingPoint::ends_scaling);
  const ScalingPoint& why = end == points.end() ? points.back() : *end;
  log_info("  {} {} ranks: {} of communication, {} of computing",
           end == points.end() ? "goes on at" : "ends at", grouped(why.ranks),
           seconds_text(why.communication_seconds), seconds_text(why.compute_seconds));
  if (why.longest.empty()) return;
  log_info("  {:.0f} % of communication is waiting: {} rounds of messages in {} waits",
           100 * why.waiting_seconds / why.communication_seconds, grouped(why.rounds),
           grouped(why.waits));
  log_info("  the longest: {}, {}", why.longest, seconds_text(why.longest_seconds));
}

void log_plan(const PlanInputs& inputs, const Plan& plan, const std::vector<ScalingPoint>& scaling,
              const std::string& file, bool as_given) {
  const double speed_up = scaling.front().step_seconds() / plan.step_seconds();
  const Config& config = inputs.config;
  const Device& device = inputs.device;
  const auto rows = std::accumulate(inputs.shard_rows.begin(), inputs.shard_rows.end(), int64_t{0});
  const std::string by =
      inputs.means ? "in one step"
                   : fmt::format("by {}{}", name_of(config.model.engine),
                                 config.model.form == FormName::kIds ? " for each id" : "");
  log_info("{}: model {} {}, reduce {}", file, config.model.name, by,
           name_of(config.parallel.reduce));
  log_info("{} rank{} of {} thread{} on {} node{}", inputs.ranks, inputs.ranks == 1 ? "" : "s",
           config.parallel.threads, config.parallel.threads == 1 ? "" : "s", inputs.nodes,
           inputs.nodes == 1 ? "" : "s");
  if (config.data.path.empty())
    log_info("no data.path: {}, in equal shards",
             as_given ? "counts as given, else KuaiRec's" : "the counts of KuaiRec are assumed");
  else
    log_info("data set {}", config.data.path);
  log_info("  {} rows of {} users and {} videos, {} shards", grouped(rows), grouped(inputs.users),
           grouped(inputs.items), inputs.shard_rows.size());
  log_info("  {} to train on, as expected of the split; {} test pairs", grouped(plan.training_rows),
           grouped(inputs.test_pairs));
  log_info("device {}: {}, {} {} a node", device.name, device.description, device.per_node,
           device.gpu ? "devices" : "cores");
  const std::string memory = scaled(static_cast<double>(device.memory_bytes), "B");
  if (device.gpu) {
    log_info("  memory {} at {}", memory, scaled(device.memory_bandwidth, "B/s"));
    log_info("  peak fp32 {} (counted with), tf32 {}, bf16 {}", scaled(device.fp32, "FLOP/s"),
             scaled(device.tf32, "FLOP/s"), scaled(device.bf16, "FLOP/s"));
  } else {
    log_info("  memory {} a node", memory);
  }
  log_info("  {} {}, {} between nodes", device.link, scaled(device.link_bandwidth, "B/s"),
           device.network);
  log_placement(inputs, plan);
  log_parameters(inputs, plan);
  log_memory(inputs, plan);
  log_collectives(inputs, plan);
  log_step(inputs, plan, speed_up);
  log_scaling(inputs, scaling);
}

// --- JSON ------------------------------------------------------------------------------------------------

json to_json(Range range) { return {range.begin, range.end}; }

json to_json(const Traffic& t) {
  return {{"messages", t.messages},
          {"sent_bytes", t.sent_bytes},
          {"received_bytes", t.received_bytes},
          {"read_bytes", t.read_bytes},
          {"remote_messages", t.remote_messages},
          {"remote_sent_bytes", t.remote_sent_bytes},
          {"remote_received_bytes", t.remote_received_bytes}};
}

json to_json(const Device& device) {
  json document{{"name", device.name},
                {"description", device.description},
                {"memory_bytes", device.memory_bytes},
                {"per_node", device.per_node},
                {"link", device.link},
                {"link_bytes_per_s", device.link_bandwidth},
                {"link_latency_s", device.link_latency_s},
                {"network", device.network},
                {"network_bytes_per_s", device.network_bandwidth},
                {"network_latency_s", device.network_latency_s},
                {"message_overhead_s", device.message_overhead_s},
                {"source", device.source}};
  if (device.gpu)
    document.update({{"fp32_flops", device.fp32},
                     {"tf32_flops", device.tf32},
                     {"bf16_flops", device.bf16},
                     {"memory_bytes_per_s", device.memory_bandwidth}});
  return document;
}

json to_json(const std::vector<ScalingPoint>& points) {
  json list = json::array();
  for (const ScalingPoint& p : points)
    list.push_back({{"ranks", p.ranks},
                    {"nodes", p.nodes},
                    {"peak_memory_bytes", p.peak_bytes},
                    {"incoming_bytes", p.incoming_bytes},
                    {"waits", p.waits},
                    {"rounds", p.rounds},
                    {"compute_s", p.compute_seconds},
                    {"communication_s", p.communication_seconds},
                    {"waiting_s", p.waiting_seconds},
                    {"longest", p.longest},
                    {"longest_s", p.longest_seconds}});
  const auto end = std::ranges::find_if(points, &ScalingPoint::ends_scaling);
  return {{"points", list}, {"ends_at_ranks", end == points.end() ? json() : json(end->ranks)}};
}

json document_of(const PlanInputs& inputs, const Plan& plan,
                 const std::vector<ScalingPoint>& scaling) {
  const double speed_up = scaling.front().step_seconds() / plan.step_seconds();
  const Config& config = inputs.config;
  json placement = json::array(), parameters = json::array(), collectives = json::array();
  for (size_t r = 0; r < plan.ranks.size(); ++r) {
    const RankPlan& rank = plan.ranks[r];
    json memory = json::object(), busy = json::object(), owned = json::object();
    for (const MemoryUse& use : rank.memory)
      memory[use.what] = {{"bytes", use.bytes}, {"when", name_of(use.phase)}};
    for (size_t k = 0; k < plan.busy_parts.size(); ++k)
      busy[plan.busy_parts[k]] = rank.busy_seconds[k];
    for (size_t a = 0; a < inputs.parameters.size(); ++a)
      owned[inputs.parameters[a].name] = to_json(rank.owned[a]);
    placement.push_back({{"rank", r},
                         {"node", rank.node},
                         {"shards", to_json(rank.shards)},
                         {"rows", rank.rows},
                         {"users", rank.users},
                         {"parameter_rows", owned},
                         {"memory", memory},
                         {"peak_memory_bytes", peak_bytes(rank.memory)},
                         {"compute_parts_s", busy},
                         {"compute_s", rank.compute_seconds}});
    if (!inputs.means) placement.back()["samples_per_step"] = rank.samples;
  }
  for (const ParameterSpec& spec : inputs.parameters)
    parameters.push_back({{"name", spec.name},
                          {"kind", kind_of(spec)},
                          {"rows", spec.rows},
                          {"columns", spec.cols}});
  for (const Collective& collective : plan.collectives) {
    json ranks = json::array();
    for (const Traffic& t : collective.ranks) ranks.push_back(to_json(t));
    collectives.push_back({{"operation", collective.operation},
                           {"of", collective.what},
                           {"times", collective.times},
                           {"rounds", collective.rounds},
                           {"seconds", collective.seconds},
                           {"ranks", ranks}});
  }
  const auto rows = std::accumulate(inputs.shard_rows.begin(), inputs.shard_rows.end(), int64_t{0});
  const double seconds = plan.step_seconds();
  json document{{"config", to_json(config)},
                {"ranks", inputs.ranks},
                {"nodes", inputs.nodes},
                {"device", to_json(inputs.device)},
                {"dataset",
                 {{"path", config.data.path},
                  {"assumed", config.data.path.empty()},
                  {"rows", rows},
                  {"rows_train", plan.training_rows},
                  {"users", inputs.users},
                  {"items", inputs.items},
                  {"shards", inputs.shard_rows.size()},
                  {"small_pairs", inputs.test_pairs}}},
                {"parameters", {{"count", plan.parameters}, {"arrays", parameters}}},
                {"placement", placement},
                {"largest_shard",
                 {{"shard", plan.largest_shard},
                  {"share", plan.largest_share},
                  {"speed_up_bound", 1 / plan.largest_share}}},
                {"speed_up_bound", plan.speed_up_bound},
                {"scaling", to_json(scaling)}};
  document["memory"] = {{"of", inputs.device.gpu ? "device" : "node"},
                        {"needed_bytes", plan.memory_bytes},
                        {"available_bytes", inputs.device.memory_bytes},
                        {"fits", plan.fits},
                        {"ranks_needed", plan.ranks_needed > 0 ? json(plan.ranks_needed) : json()}};
  document["step"] = {{"collectives", collectives},
                      {"overlap", kOverlap},
                      {"waits", plan.waits},
                      {"rounds", plan.rounds},
                      {"waiting_s", plan.waiting_seconds},
                      {"compute_s", plan.compute_seconds},
                      {"communication_s", plan.communication_seconds},
                      {"seconds", seconds},
                      {"exposed_share", plan.communication_seconds / seconds},
                      {"samples_per_second", samples_per_second(plan)},
                      {"speed_up", speed_up},
                      {"oversubscription", plan.oversubscription},
                      {"estimate", estimate_of(inputs)}};
  if (!inputs.means)
    document["step"].update({{"samples", config.train.global_batch},
                             {"steps_per_epoch", plan.steps},
                             {"flops", plan.flops},
                             {"epoch_s", plan.epoch_and_steps_seconds()}});
  if (on_devices(inputs)) {
    json kernels = json::array();
    for (const DeviceKernel& kernel : slowest_of(plan).kernels)
      kernels.push_back({{"name", kernel.name},
                         {"launches", kernel.launches},
                         {"operations", kernel.operations},
                         {"bytes", kernel.bytes},
                         {"seconds", kernel.seconds}});
    document["step"].update({{"kernels", kernels}, {"prepare_epoch_s", plan.epoch_seconds}});
  }
  return document;
}

int run_plan(const PlanArguments& arguments, const GlobalOptions& global) {
  refuse_several_ranks("plan");
  std::string file;
  const PlanInputs inputs = inputs_of(arguments, file);
  const Plan plan = make_plan(inputs);
  const std::vector<ScalingPoint> scaling = scaling_of(inputs);
  log_plan(inputs, plan, scaling, file, arguments.counts.any());
  if (global.json) fmt::print("{}\n", to_text(document_of(inputs, plan, scaling), 2));
  return kExitDone;
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "plan", "Memory, communication and time of a run, before anything is taken");
  const auto arguments = std::make_shared<PlanArguments>();
  command
      ->add_option("config", arguments->config_and_overrides,
                   "Configuration (default: configs/ncf.yaml), then keys set after it")
      ->type_name("F.yaml key.path=value");
  command->add_option("--ranks", arguments->ranks, "Ranks of the run")
      ->required()
      ->check(whole_number(1, 1 << 20))
      ->type_name("N");
  std::string known;
  for (const std::string& name : device_names()) known += (known.empty() ? "" : ", ") + name;
  command->add_option("--device", arguments->device, "What a rank computes on: " + known)
      ->capture_default_str()
      ->type_name("NAME");
  command
      ->add_option("--nodes", arguments->nodes,
                   "Nodes the ranks are spread over; default: one, on GPUs one for each eight")
      ->check(whole_number(1, 1 << 20))
      ->type_name("M");
  command
      ->add_option("--memory", arguments->memory_gb,
                   "GB of a node of cpus; default: this machine's")
      ->check(number(1e-3, 1e9))
      ->type_name("GB");
  command
      ->add_option("--cores", arguments->cores, "Cores of a node of cpus; default: this machine's")
      ->check(whole_number(1, 1 << 20))
      ->type_name("C");
  const auto count = [&](const char* option, int64_t& value, int64_t most, const char* what) {
    command
        ->add_option(option, value,
                     fmt::format("{} of a data set that is not there; default: KuaiRec's", what))
        ->check(whole_number(1, most))
        ->type_name("N");
  };
  count("--users", arguments->counts.users, INT32_MAX, "Users");
  count("--items", arguments->counts.items, INT32_MAX, "Videos");
  count("--rows", arguments->counts.rows, int64_t{1} << 40, "Rows");
  count("--shards", arguments->counts.shards, 4096, "Shards, a power of two,");
  command->footer(
      "Without data.path it plans for KuaiRec itself, or for the counts given. The model behind "
      "it: docs/plan.md.\n\n"
      "Examples:\n"
      "  kuaitrain plan configs/ncf.yaml --ranks 4\n"
      "  kuaitrain plan --ranks 16 --device h100 data.path=kuairec train.global_batch=65536\n"
      "  kuaitrain plan --ranks 1024 --nodes 128 --shards 1024 --items 100000000 "
      "model.content=none");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) { return run_plan(*arguments, global); };
  });
}

}  // namespace kt
