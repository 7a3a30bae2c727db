#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

/// The commands of `kuaitrain`, one file each in trainer/commands/. Each `add_*` declares its arguments, with
/// an example in its help; when it is the one given, parsing stores what it does in `action`, which `main`
/// runs. An action returns an exit code or throws (launch/base/errors.h).
namespace kt {

struct ScoredRunsOptions;

/// Options every command has.
struct GlobalOptions {
  bool json = false;   ///< one JSON document on stdout, people's text on stderr
  bool quiet = false;  ///< warnings and errors only
};

using Action = std::function<int(const GlobalOptions&)>;

/// What is wrong with a number of the command line; empty for nothing. CLI11 itself takes what strtoll and strtod do:
/// 010 for eight, 0x10, nan, 1e300.
using NumberCheck = std::function<std::string(const std::string&)>;
NumberCheck whole_number(int64_t low, int64_t high);
NumberCheck number(double low, double high);

/// What is to be trained: --config F.yaml, and overrides of its keys.
void add_configuration(CLI::App& command, std::string& config, std::vector<std::string>& overrides);

/// How several runs score as one (trainer/run/scored_runs.h).
struct JoinArguments {
  int64_t rerank = 0;
  bool blend = false;
  std::string of = "scores";
  std::string weights = "equal";
  ScoredRunsOptions options(std::vector<std::string> runs) const;
};
void add_join(CLI::App& command, JoinArguments& arguments);

/// Whose scores are wanted: runs, overrides of their keys among them, and how several are joined.
struct RunArguments {
  std::vector<std::string> words;
  JoinArguments join;
  ScoredRunsOptions options() const;
};
void add_runs(CLI::App& command, RunArguments& arguments);

void add_train(CLI::App& app, Action& action);
void add_synth(CLI::App& app, Action& action);
void add_import(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_analyze(CLI::App& app, Action& action);
void add_validate(CLI::App& app, Action& action);
void add_plan(CLI::App& app, Action& action);
void add_evaluate(CLI::App& app, Action& action);
void add_export(CLI::App& app, Action& action);
void add_recommend(CLI::App& app, Action& action);
void add_compare(CLI::App& app, Action& action);
void add_supervise(CLI::App& app, Action& action);
void add_slurm(CLI::App& app, Action& action);
void add_sweep(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);
void add_completion(CLI::App& app, Action& action);

}  // namespace kt
