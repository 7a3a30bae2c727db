#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/files/checksum.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/collectives/agree.h"
#include "launch/process/mpi_session.h"
#include "launch/process/watchdog.h"
#include "trainer/commands/commands.h"
#include "trainer/evaluation/evaluator.h"
#include "trainer/evaluation/score_files.h"
#include "trainer/run/same_on_all.h"
#include "trainer/run/scored_runs.h"

namespace kt {
namespace {

struct EvaluateArguments {
  RunArguments runs;
  std::string scores;
  std::string pairs;
  std::string per_user;
};

/// A file that rank 0 writes at the end; refused now if it could not be. Collective: all ranks.
std::optional<ResultFile> open_result(const std::string& path, const char* what,
                                      MpiCommunicator& comm) {
  std::optional<ResultFile> file;
  solo(comm, 0, what, [&] {
    if (!path.empty()) file.emplace(path);
  });
  return file;
}

std::string checksum_of(const TestTable& table) {
  Checksum sum;
  sum.values(table.users);
  sum.values(table.offsets);
  sum.values(table.item);
  sum.values(table.label);
  return sum.hex();
}

int run_evaluate(const EvaluateArguments& arguments, const GlobalOptions& global) {
  MpiSession& session = MpiSession::start();
  MpiCommunicator& comm = session.communicator();
  log_start(session.world(), global.json ? LogStream::kStderr : LogStream::kStdout, global.quiet);
  const std::optional<ResultFile> scores_file = open_result(arguments.scores, "scores", comm);
  const std::optional<ResultFile> users_file =
      open_result(arguments.per_user, "metrics of users", comm);
  ScoredRuns scored = open_scored_runs(arguments.runs.options(), comm);
  const Problem& problem = scored.problem();
  const Config& config = problem.config;
  expect_ranks(session.world(), config.parallel.ranks);
  watchdog_set_timeout(static_cast<double>(config.parallel.timeout_s));
  ThreadPool pool(static_cast<int>(config.parallel.threads));

  TestTable table;
  same_on_all(comm, [&] {
    const bool given = !arguments.pairs.empty();
    table =
        given ? read_pairs(arguments.pairs, problem.dataset.read_ids()) : read_test_table(problem);
    if (!arguments.per_user.empty() && table.label.empty())
      user_error(
          "--per-user: the pairs of {} have no labels (watch_ratio), so users have no metrics; "
          "give "
          "labels, or leave --per-user out",
          arguments.pairs);
    if (!arguments.per_user.empty() && arguments.per_user == arguments.scores)
      user_error("--per-user: got {}, the file of --scores; expected another one",
                 arguments.per_user);
    return Facts{{"--pairs", given ? "pairs of checksum " + checksum_of(table) : "none"},
                 {"--scores", arguments.scores.empty() ? "none" : arguments.scores},
                 {"--per-user", arguments.per_user.empty() ? "none" : arguments.per_user}};
  });
  scored.find_devices(comm);
  scored.prepare(comm, pool);
  Evaluator evaluator(problem, table, comm, pool, scored.unit);
  Evaluation evaluation = evaluator.evaluate(*scored.predictor, scored.checkpoint);
  evaluation.report.update(scored.joined);
  if (session.world().rank == 0) print_evaluation(problem, evaluation.report);
  if (!arguments.scores.empty()) {
    const std::vector<float> scores = evaluator.gather(evaluation.scores);
    solo(comm, 0, "scores", [&] {
      write_scores(*scores_file, table, scores, problem.dataset.read_ids());
      log_info("scores: {}, {} pairs", arguments.scores, table.item.size());
    });
  }
  if (!arguments.per_user.empty())
    solo(comm, 0, "metrics of users", [&] {
      write_user_values(*users_file, table, evaluation.user_values, problem.dataset.read_ids());
      log_info("metrics of users: {}, {} users", arguments.per_user, table.users.size());
    });
  if (scored.devices) scored.devices->finish();
  if (session.world().rank == 0 && global.json) fmt::print("{}\n", to_text(evaluation.report, 2));
  return kExitDone;
}

}  // namespace

void add_evaluate(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "evaluate", "Score the small matrix, or given pairs, with a trained run: all metrics");
  const auto arguments = std::make_shared<EvaluateArguments>();
  add_runs(*command, arguments->runs);
  command
      ->add_option("--scores", arguments->scores,
                   "Also write user_id,video_id,watch_ratio,score of every pair")
      ->type_name("F.csv");
  command
      ->add_option(
          "--pairs", arguments->pairs,
          "Score the pairs of this CSV (user_id,video_id,watch_ratio) instead of the small "
          "matrix; without watch_ratio they are scored alone")
      ->type_name("P.csv");
  command
      ->add_option("--per-user", arguments->per_user,
                   "Also write user_id,pairs and every metric of each user: one line a user")
      ->type_name("F.csv");
  command->footer(
      "Examples:\n"
      "  mpirun -np 2 kuaitrain evaluate runs/ncf --scores scores.csv evaluate.checkpoint=best\n"
      "  mpirun -np 2 kuaitrain evaluate runs/ncf runs/mf --blend --weights validation\n"
      "  mpirun -np 2 kuaitrain evaluate runs/two_tower runs/rerank --rerank 200");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) { return run_evaluate(*arguments, global); };
  });
}

}  // namespace kt
