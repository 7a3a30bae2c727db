#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/config/reader.h"
#include "io/dataset/dataset.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "io/files/shipped_file.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/child.h"
#include "launch/process/mpi_session.h"
#include "models/systems/registry.h"
#include "sharding/plan.h"
#include "trainer/commands/commands.h"
#include "trainer/planning/plan_inputs.h"
#include "trainer/supervision/batch_script.h"
#include "trainer/supervision/supervisor.h"

namespace kt {
namespace {

namespace fs = std::filesystem;

struct SlurmArguments {
  std::string config;
  std::vector<std::string> overrides;
  int64_t nodes = 0;
  int64_t ranks_per_node = 0;  // 0: a rank a GPU, else one
  int64_t threads = 0;         // 0: as configured
  int64_t gpus_per_node = 0;
  std::string time, partition, account;
  std::string launcher = "mpirun";
  std::string out;
};

// What a plan does not count: libraries, buffers of MPI, the page cache that reading goes through.
constexpr double kMemoryMargin = 1.25;
constexpr double kMemoryBeside_mb = 512;

/// What sbatch says of a script that it is asked about.
struct Verdict {
  enum class Kind { kTaken, kRefused, kNobodyAnswers } kind;
  std::string words;
};

std::string launcher_line(const std::string& name, int64_t threads) {
  if (name == "srun")
    return fmt::format("srun --mpi=pmix --kill-on-bad-exit --cpus-per-task={}", threads);
  return threads > 1 ? "mpirun --bind-to none" : "mpirun";
}

/// Units: MB of a node; 0 where there is no plan.
int64_t memory_mb(const Config& config, int64_t ranks, int64_t nodes) {
  try {
    const Plan plan = make_plan(plan_inputs(config, find_device("cpu"), ranks, nodes));
    const double mb = static_cast<double>(plan.memory_bytes) / (1 << 20);
    return std::llround(std::ceil(kMemoryMargin * mb + kMemoryBeside_mb));
  } catch (const NoPlan&) {
    log_info("memory: the site's default, for {} has no plan of its own", config.model.name);
    return 0;
  }
}

/// The keys that the job's options decide, put after those of the user.
std::vector<std::string> all_overrides(const SlurmArguments& arguments) {
  std::vector<std::string> overrides = arguments.overrides;
  if (arguments.threads > 0)
    overrides.push_back(fmt::format("parallel.threads={}", arguments.threads));
  if (arguments.gpus_per_node > 0) overrides.push_back("parallel.backend=nccl");
  return overrides;
}

void check_plain(const char* option, const std::string& value) {
  if (quoted(value) != value && !value.empty())
    user_error("{}: got {}, expected a name of letters, digits and _ - . , : @", option, value);
}

BatchJob job_of(const SlurmArguments& arguments, const std::string& script) {
  check_plain("--partition", arguments.partition);
  check_plain("--account", arguments.account);
  if (arguments.gpus_per_node > 0 && arguments.ranks_per_node > arguments.gpus_per_node)
    user_error(
        "--ranks-per-node: got {}, but a node gives {} GPUs and a rank needs its own; give "
        "at most {}",
        arguments.ranks_per_node, arguments.gpus_per_node, arguments.gpus_per_node);
  if (!arguments.time.empty()) {
    const std::optional<int64_t> seconds = seconds_of(arguments.time);
    const int64_t lead = signal_lead_s(script);
    if (!seconds) user_error("--time: got {}, expected [D-]HH:MM:SS, as 01:30:00", arguments.time);
    if (*seconds <= lead)
      user_error("--time: got {}, but the run is asked to save {} s before the end; expected more",
                 arguments.time, lead);
  }

  const std::vector<std::string> overrides = all_overrides(arguments);
  const Config config = load_config(arguments.config, overrides, model_declarations());
  const int64_t per_node = arguments.ranks_per_node > 0
                               ? arguments.ranks_per_node
                               : std::max<int64_t>(1, arguments.gpus_per_node);
  const int64_t ranks = arguments.nodes * per_node;
  check_supervised(config, ranks);
  if (!config.data.path.empty())
    check_world(Dataset::open(config.data.path).shards(), {0, static_cast<int>(ranks)});

  BatchJob job{.name = fs::path(arguments.config).stem().string(),
               .nodes = arguments.nodes,
               .ranks_per_node = per_node,
               .threads = config.parallel.threads,
               .time = arguments.time,
               .partition = arguments.partition,
               .account = arguments.account,
               .gpus_per_node = arguments.gpus_per_node,
               .launcher = launcher_line(arguments.launcher, config.parallel.threads),
               .folder = fs::current_path().string(),
               .program = fs::read_symlink("/proc/self/exe").string(),
               .arguments = {"--config", arguments.config}};
  check_plain("the configuration's name", job.name);
  // Of a GPU's host no plan says anything.
  if (arguments.gpus_per_node == 0) job.memory_mb = memory_mb(config, ranks, job.nodes);
  job.arguments.insert(job.arguments.end(), overrides.begin(), overrides.end());
  return job;
}

Verdict ask_sbatch(const fs::path& script) {
  Output output;
  try {
    output = output_of({"sbatch", "--test-only", script.string()});
  } catch (const UserError&) {
    return {Verdict::Kind::kNobodyAnswers, "there is no sbatch here"};
  }
  output.text.erase(output.text.find_last_not_of('\n') + 1);
  if (output.code == 0) return {Verdict::Kind::kTaken, output.text};
  for (const char* silence : {"Unable to contact", "configuration source"})
    if (output.text.find(silence) != output.text.npos)
      return {Verdict::Kind::kNobodyAnswers, output.text};
  return {Verdict::Kind::kRefused, output.text};
}

void expect_replaceable(const fs::path& out) {
  std::error_code ignored;
  if (fs::exists(out, ignored) && !is_batch_script(read_text_file(out)))
    user_error("--out: {} exists and was not written by this command; name another file",
               out.string());
}

/// Checked beside `out` first, so that what bash or sbatch refuses is never there.
Verdict write_checked(const fs::path& out, const std::string& text) {
  const fs::path trial = out.string() + ".unchecked";
  replace_file(trial, text);
  const Output bash = output_of({"bash", "-n", trial.string()});
  const Verdict verdict = ask_sbatch(trial);
  std::error_code ignored;
  fs::remove(trial, ignored);
  KT_CHECK(bash.code == 0, "bash -n: {}", bash.text);
  if (verdict.kind == Verdict::Kind::kRefused)
    user_error("sbatch refuses the job: {}; change what it names, nothing was written",
               verdict.words);
  replace_file(out, text);
  return verdict;
}

int run_slurm(const SlurmArguments& arguments, const GlobalOptions& global) {
  refuse_several_ranks("slurm");
  expect_replaceable(arguments.out);
  const std::string script = read_text_file(
      shipped_file("slurm/train.sbatch", "the template of batch scripts", "restore it"));
  const BatchJob job = job_of(arguments, script);
  const Verdict verdict = write_checked(arguments.out, batch_script(script, job));
  if (verdict.kind == Verdict::Kind::kNobodyAnswers)
    log_warning("sbatch has not checked the job: {}", verdict.words);
  else
    log_info("{}", verdict.words);
  log_info("{}: {} node{} of {} rank{}, {} a node; submit it by `sbatch {}`", arguments.out,
           job.nodes, job.nodes == 1 ? "" : "s", job.ranks_per_node,
           job.ranks_per_node == 1 ? "" : "s",
           job.memory_mb > 0 ? fmt::format("{} MB", job.memory_mb) : "the site's memory",
           quoted(arguments.out));
  if (global.json)
    fmt::print("{}\n",
               to_text(nlohmann::json{{"out", arguments.out},
                                      {"nodes", job.nodes},
                                      {"ranks", job.nodes * job.ranks_per_node},
                                      {"threads", job.threads},
                                      {"memory_mb_per_node", job.memory_mb},
                                      {"checked_by_sbatch", verdict.kind == Verdict::Kind::kTaken},
                                      {"sbatch", verdict.words}},
                       2));
  return kExitDone;
}

}  // namespace

void add_slurm(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("slurm", "Write a batch script for SLURM that trains a configuration");
  const auto arguments = std::make_shared<SlurmArguments>();
  command->add_option("config", arguments->config, "The configuration")
      ->required()
      ->type_name("F.yaml");
  command
      ->add_option("overrides", arguments->overrides, "Keys set after the file; the last one wins")
      ->type_name("key.path=value");
  command->add_option("--out", arguments->out, "The script")->required()->type_name("F.sbatch");
  command->add_option("--nodes", arguments->nodes, "Nodes")
      ->required()
      ->check(whole_number(1, 100'000))
      ->type_name("N");
  command
      ->add_option("--ranks-per-node", arguments->ranks_per_node,
                   "Ranks of a node; default: one for each of its GPUs, without any one")
      ->check(whole_number(1, 1000))
      ->type_name("R");
  command
      ->add_option("--threads", arguments->threads, "Threads of a rank; default: parallel.threads")
      ->check(whole_number(1, 1024))
      ->type_name("T");
  command->add_option("--gpus-per-node", arguments->gpus_per_node, "GPUs of a node; default: none")
      ->check(whole_number(1, 1000))
      ->type_name("G");
  command
      ->add_option("--time", arguments->time,
                   "Time limit, after which the job takes itself up again; default: an hour")
      ->type_name("HH:MM:SS");
  command->add_option("--partition", arguments->partition, "Default: the site's")->type_name("P");
  command->add_option("--account", arguments->account, "Default: the user's")->type_name("A");
  command->add_option("--launcher", arguments->launcher, "What starts the ranks: mpirun or srun")
      ->capture_default_str()
      ->check(CLI::IsMember({"mpirun", "srun"}).description(""))
      ->type_name("mpirun|srun");
  command->footer(
      "Example:\n"
      "  kuaitrain slurm configs/ncf.yaml --nodes 4 --ranks-per-node 8 --time 02:00:00 \\\n"
      "    data.path=DATASET run.dir=runs/ncf --out ncf.sbatch\n"
      "How such a job ends and goes on: docs/slurm.md.");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) { return run_slurm(*arguments, global); };
  });
}

}  // namespace kt
