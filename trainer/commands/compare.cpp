#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "io/dataset/dataset.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/collectives/agree.h"
#include "launch/process/mpi_session.h"
#include "launch/process/watchdog.h"
#include "trainer/commands/commands.h"
#include "trainer/comparison/comparison.h"
#include "trainer/comparison/comparison_report.h"
#include "trainer/comparison/systems.h"
#include "trainer/evaluation/evaluator.h"
#include "trainer/run/run_facts.h"
#include "trainer/run/same_on_all.h"
#include "trainer/run/scored_runs.h"
#include "trainer/run/settle.h"
#include "trainer/run/share.h"
#include "trainer/run/train.h"

namespace kt {
namespace {

struct CompareArguments {
  std::vector<std::string> words;  // systems, and overrides among them
  int64_t seeds = 1;
  std::string runs = "runs";
  std::string csv;
  std::vector<std::string> metrics;
  std::string against = "first";
  JoinArguments join;
};

/// What a run says of itself; nothing where it has no result.
nlohmann::json stored_result(const std::filesystem::path& run_dir, MpiCommunicator& comm) {
  std::string text;
  solo(comm, 0, "stored result", [&] {
    const std::filesystem::path file = run_dir / "result.json";
    if (!std::filesystem::exists(file)) return;
    text = read_text_file(file);
    if (!nlohmann::json::accept(text))
      user_error("{}: is no JSON; run the training of this folder again to make it anew",
                 file.string());
  });
  text = share_text(text, 0, comm);
  return text.empty() ? nlohmann::json::object() : nlohmann::json::parse(text);
}

/// Trains what is not trained yet, in the folder that it belongs to. Returns: the folder.
std::string train_run(const ComparedSystem& system, Config config,
                      const CompareArguments& arguments, MpiCommunicator& comm) {
  const std::unique_ptr<Devices> devices = settle(config, comm);
  agree(comm, [&] {
    config.run.dir =
        compared_run_folder(arguments.runs, system, config, Dataset::open(config.data.path).hash())
            .string();
  });
  log_info("compare: {}, train.seed={}, in {}", system.name, config.train.seed, config.run.dir);
  restart_peak_memory();
  train(config, comm, devices.get());
  if (devices) devices->finish();
  log_to_file("/dev/null");  // what follows is not of this run
  return config.run.dir;
}

/// All that a comparison takes from the evaluation of a run.
struct EvaluatedRun {
  SystemRun result;
  std::vector<int32_t> users;
  double seconds;
};

EvaluatedRun evaluate(const ScoredRunsOptions& runs, MpiCommunicator& comm) {
  ScoredRuns scored = open_scored_runs(runs, comm);
  Problem& problem = scored.runs.front()->problem;
  Config& config = problem.config;
  config.evaluate.bootstrap = 0;  // that of the comparison is of all runs together
  config.evaluate.groups = false;
  watchdog_set_timeout(static_cast<double>(config.parallel.timeout_s));
  ThreadPool pool(static_cast<int>(config.parallel.threads));
  TestTable table;
  agree(comm, [&] { table = read_test_table(problem); });
  scored.prepare(comm, pool);
  Evaluation evaluation = Evaluator(problem, table, comm, pool, scored.unit)
                              .evaluate(*scored.predictor, scored.checkpoint);
  return {.result = {.metrics = evaluation.report.at("metrics"),
                     .chance = evaluation.report.at("chance"),
                     .users = std::move(evaluation.user_values)},
          .users = std::move(table.users),
          .seconds = evaluation.report.at("seconds")};
}

/// What several runs cost together: their times, and the largest rank. What one does not say, no sum does.
nlohmann::json sum_costs(const std::vector<nlohmann::json>& runs) {
  nlohmann::json sum{{"wall_seconds", 0.}, {"peak_memory_bytes", int64_t{0}}};
  const auto say = [&](const char* key) {
    return std::ranges::all_of(runs, [&](const auto& run) { return run.contains(key); });
  };
  for (const nlohmann::json& run : runs) {
    if (say("wall_seconds"))
      sum["wall_seconds"] = sum["wall_seconds"].get<double>() + run["wall_seconds"].get<double>();
    if (say("peak_memory_bytes"))
      sum["peak_memory_bytes"] = std::max(sum["peak_memory_bytes"].get<int64_t>(),
                                          run["peak_memory_bytes"].get<int64_t>());
  }
  for (const char* key : {"wall_seconds", "peak_memory_bytes"})
    if (!say(key)) sum.erase(key);
  return sum;
}

/// Means of what all runs of a system say.
class Costs {
 public:
  void add(const nlohmann::json& result, double evaluate_seconds) {
    const auto take = [&](const char* key, std::vector<double>& to) {
      if (result.contains(key)) to.push_back(result.at(key));
    };
    take("wall_seconds", train_);
    take("peak_memory_bytes", memory_);
    evaluate_.push_back(evaluate_seconds);
  }
  void write(ComparedRuns& runs) const {
    runs.train_seconds = mean(train_);
    runs.evaluate_seconds = mean(evaluate_);
    if (const auto memory = mean(memory_)) runs.peak_memory_bytes = static_cast<int64_t>(*memory);
  }

 private:
  std::optional<double> mean(const std::vector<double>& values) const {
    if (values.empty() || values.size() < evaluate_.size()) return std::nullopt;
    return std::accumulate(values.begin(), values.end(), 0.) / static_cast<double>(values.size());
  }

  std::vector<double> train_, evaluate_, memory_;
};

/// All systems as one more, of the runs of each seed; of a system with one run, that.
void add_joined(Comparison& comparison, std::vector<std::vector<SystemRun>>& results,
                const JoinArguments& arguments, MpiCommunicator& comm) {
  size_t seeds = 1;
  for (const ComparedRuns& system : comparison.systems)
    seeds = std::max(seeds, system.folders.size());
  ComparedRuns joined{.name =
                          arguments.blend ? "blend" : fmt::format("rerank-{}", arguments.rerank)};
  std::vector<SystemRun> of_seeds;
  Costs costs;
  for (size_t k = 0; k < seeds; ++k) {
    ScoredRunsOptions options = arguments.options({});
    std::vector<nlohmann::json> stored;
    for (const ComparedRuns& system : comparison.systems) {
      options.runs.push_back(system.folders[std::min(k, system.folders.size() - 1)]);
      stored.push_back(stored_result(options.runs.back(), comm));
    }
    EvaluatedRun run = evaluate(options, comm);
    costs.add(sum_costs(stored), run.seconds);
    of_seeds.push_back(std::move(run.result));
    joined.folders.push_back(fmt::format("{}", fmt::join(options.runs, " + ")));
    joined.seeds.push_back(static_cast<int64_t>(k + 1));
  }
  costs.write(joined);
  comparison.systems.push_back(std::move(joined));
  results.push_back(std::move(of_seeds));
}

/// What most look at, of the labels and the shortest lists of the first system.
std::vector<std::string> usual_metrics(const Config::Evaluate& evaluate) {
  std::vector<std::string> names = {"mse_clipped", "mae_clipped"};
  for (const std::string& label : evaluate.labels)
    if (label.starts_with("ratio>=")) names.push_back("gauc@" + label);
  for (const std::string& label : evaluate.labels)
    names.push_back(fmt::format("ndcg@{}/{}", evaluate.k.front(), label));
  names.push_back(fmt::format("ndcg@{}/graded5", evaluate.k.front()));
  return names;
}

/// The metrics asked for, or the usual ones that there are. Throws: UserError for one that no system has.
std::vector<std::string> chosen_metrics(const std::vector<std::string>& asked,
                                        const Config::Evaluate& evaluate,
                                        std::span<const std::vector<SystemRun>> systems) {
  std::set<std::string> known;
  for (const std::vector<SystemRun>& runs : systems)
    for (const auto& [name, value] : runs[0].metrics) known.insert(name);
  std::vector<std::string> chosen = asked.empty() ? usual_metrics(evaluate) : asked;
  if (asked.empty())
    std::erase_if(chosen, [&](const std::string& name) { return !known.contains(name); });
  for (const std::string& name : chosen)
    if (!known.contains(name))
      user_error(
          "--metrics: got {}, which no system here has; expected names as in the report of "
          "evaluate --json, such as {}",
          name, *known.begin());
  return chosen;
}

int run_compare(const CompareArguments& arguments, const GlobalOptions& global) {
  MpiSession& session = MpiSession::start();
  MpiCommunicator& comm = session.communicator();
  log_start(session.world(), global.json ? LogStream::kStderr : LogStream::kStdout, global.quiet);
  std::vector<std::string> given, overrides;
  for (const std::string& word : arguments.words)
    (word.find('=') == std::string::npos ? given : overrides).push_back(word);
  const bool joins = arguments.join.blend || arguments.join.rerank > 0;
  std::optional<ResultFile> csv;
  solo(comm, 0, "comparison", [&] {
    if (!arguments.csv.empty()) csv.emplace(arguments.csv);
  });
  same_on_all(comm, [&] {
    if (given.empty())
      user_error("compare: got no systems, expected configurations or folders of runs");
    if (joins) check_options(arguments.join.options(given));
    return Facts{{"--seeds", fmt::format("{}", arguments.seeds)},
                 {"--runs", arguments.runs},
                 {"--csv", arguments.csv.empty() ? "none" : arguments.csv},
                 {"--metrics", fmt::format("{}", fmt::join(arguments.metrics, ","))},
                 {"--against", arguments.against},
                 {"--blend", arguments.join.blend ? "given" : "none"},
                 {"--rerank", fmt::format("{}", arguments.join.rerank)}};
  });
  const std::vector<ComparedSystem> systems = read_systems(given, overrides, comm);

  Comparison comparison;
  std::vector<std::vector<SystemRun>> results;
  std::vector<int32_t> users;
  for (const ComparedSystem& system : systems) {
    ComparedRuns& runs = comparison.systems.emplace_back(ComparedRuns{.name = system.name});
    results.emplace_back();
    Costs costs;
    for (int64_t k = 0; k < (system.is_run ? 1 : arguments.seeds); ++k) {
      Config config = system.config;
      config.train.seed += k;
      runs.seeds.push_back(config.train.seed);
      runs.folders.push_back(system.is_run ? system.argument
                                           : train_run(system, config, arguments, comm));
      EvaluatedRun run =
          evaluate({.runs = {runs.folders.back()},
                    .overrides = system.is_run ? overrides : std::vector<std::string>()},
                   comm);
      costs.add(stored_result(runs.folders.back(), comm), run.seconds);
      results.back().push_back(std::move(run.result));
      users = std::move(run.users);
    }
    costs.write(runs);
  }
  if (joins) add_joined(comparison, results, arguments.join, comm);

  const Config& first = systems.front().config;
  ThreadPool pool(static_cast<int>(first.parallel.threads));
  comparison.users = std::ssize(users);
  comparison.replicates = first.evaluate.bootstrap;
  comparison.against = arguments.against == "best" ? Against::kBest : Against::kFirst;
  same_on_all(comm, [&] {
    const Dataset dataset = Dataset::open(first.data.path);
    comparison.dataset = first.data.path;
    comparison.dataset_hash = dataset.hash();
    comparison.synthetic = dataset.synthetic();
    comparison.metrics = chosen_metrics(arguments.metrics, first.evaluate, results);
    return Facts{};
  });
  {
    const Phase phase("comparison");
    comparison.values = compare(comparison.metrics, results, users, comparison.replicates,
                                comparison.against, comm, pool);
  }
  log_info("{}", comparison_table(comparison));
  solo(comm, 0, "comparison", [&] {
    if (csv) csv->write(comparison_csv(comparison));
  });
  if (session.world().rank == 0 && global.json)
    fmt::print("{}\n", to_text(comparison_json(comparison), 2));
  return kExitDone;
}

}  // namespace

void add_compare(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "compare", "Systems on one data set and split: quality with intervals, differences, costs");
  const auto arguments = std::make_shared<CompareArguments>();
  command
      ->add_option("systems", arguments->words,
                   "Configurations, which are trained unless that is done already, and folders of "
                   "runs. Then keys for all of them")
      ->required()
      ->type_name("CONFIG_OR_RUN|key.path=value");
  command
      ->add_option("--seeds", arguments->seeds,
                   "Trainings of each configuration, of the seeds from train.seed on")
      ->check(whole_number(1, 1000))
      ->type_name("K")
      ->capture_default_str();
  command->add_option("--runs", arguments->runs, "Where the folders of trained runs are")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_option("--csv", arguments->csv, "Also write a line for each system and metric")
      ->type_name("F.csv");
  command
      ->add_option("--metrics", arguments->metrics,
                   "Metrics to compare by, separated by commas; default: the usual ones")
      ->delimiter(',')
      ->type_name("NAMES");
  command
      ->add_option(
          "--against", arguments->against,
          "What the others are compared with: the first system, or the best by each metric")
      ->check(CLI::IsMember({"first", "best"}).description(""))
      ->type_name("first|best")
      ->capture_default_str();
  add_join(*command, arguments->join);
  command->footer(
      "Example:\n  mpirun -np 2 kuaitrain compare configs/additive_means.yaml configs/mf.yaml "
      "--seeds 3 data.path=DATASET data.validation.fraction=0.1");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) { return run_compare(*arguments, global); };
  });
}

}  // namespace kt
