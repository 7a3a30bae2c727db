#include <CLI/CLI.hpp>

#include "trainer/commands/commands.h"
#include "trainer/run/scored_runs.h"

namespace kt {

ScoredRunsOptions RunArguments::options() const {
  ScoredRunsOptions options{
      .runs = {}, .overrides = {}, .blend = blend.blend, .of = blend.of, .weights = blend.weights};
  for (const std::string& word : words)
    (word.find('=') == std::string::npos ? options.runs : options.overrides).push_back(word);
  return options;
}

void add_blend(CLI::App& command, BlendArguments& arguments) {
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
  add_blend(command, arguments.blend);
}

}  // namespace kt
