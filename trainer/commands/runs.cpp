#include <CLI/CLI.hpp>
#include <limits>
#include <utility>

#include "trainer/commands/commands.h"
#include "trainer/run/scored_runs.h"

namespace kt {

ScoredRunsOptions JoinArguments::options(std::vector<std::string> runs) const {
  return {.runs = std::move(runs),
          .overrides = {},
          .rerank = rerank,
          .blend = blend,
          .of = of,
          .weights = weights};
}

ScoredRunsOptions RunArguments::options() const {
  ScoredRunsOptions options = join.options({});
  for (const std::string& word : words)
    (word.find('=') == std::string::npos ? options.runs : options.overrides).push_back(word);
  return options;
}

void add_join(CLI::App& command, JoinArguments& arguments) {
  command
      .add_option("--rerank", arguments.rerank,
                  "Of two runs: a user's N best by the first in the order of the second, then the "
                  "others as they are; an order alone")
      ->check(whole_number(1, std::numeric_limits<int32_t>::max()))
      ->type_name("N");
  command.add_flag("--blend", arguments.blend, "Score several runs as one: their weighted sum");
  command.add_option("--of", arguments.of, "What is summed: scores, or ranks in a user's list")
      ->type_name("scores|ranks")
      ->capture_default_str();
  command
      .add_option(
          "--weights", arguments.weights,
          "equal; validation: found by least squares on the rows held out; or a number a run")
      ->type_name("equal|validation|W,W,...")
      ->capture_default_str();
}

void add_runs(CLI::App& command, RunArguments& arguments) {
  command
      .add_option("run", arguments.words,
                  "Folder of the run, and changes to its configuration, e.g. "
                  "evaluate.checkpoint=best")
      ->required()
      ->type_name("RUN... [key.path=value ...]");
  add_join(command, arguments.join);
}

}  // namespace kt
