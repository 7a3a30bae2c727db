#include "launch/process/mpi_session.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "launch/collectives/shared_slots.h"
#include "launch/process/host.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

constexpr double kStartTimeout_s = 60;  // until the configuration says otherwise
constexpr double kFinishTimeout_s = 30;

MpiSession* session = nullptr;

int environment_int(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  int value = otherwise;
  if (text) std::from_chars(text, text + std::strlen(text), value);
  return value;
}

/// Whether anything would tell Open MPI of the others of its step. Without it, it ends the process in words of its own.
bool has_pmi() {
  return std::ranges::any_of(std::array{"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_FD"},
                             [](const char* name) { return std::getenv(name) != nullptr; });
}

/// Variables of the environment for the start of MPI alone, where the user has not set them: what this process starts
/// itself later may do without.
class StartVariables {
 public:
  StartVariables() = default;
  StartVariables(const StartVariables&) = delete;
  ~StartVariables() {
    for (const char* name : names_) unsetenv(name);
  }
  void set(const char* name, const char* value) {
    if (std::getenv(name)) return;
    setenv(name, value, 1);
    names_.push_back(name);
  }

 private:
  std::vector<const char*> names_;
};

}  // namespace

int launched_tasks() {
  if (std::getenv("OMPI_COMM_WORLD_SIZE")) return environment_int("OMPI_COMM_WORLD_SIZE", 1);
  if (std::getenv("PMI_SIZE")) return environment_int("PMI_SIZE", 1);
  if (std::getenv("SLURM_PROCID")) return environment_int("SLURM_STEP_NUM_TASKS", 1);
  return 1;
}

int launched_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"})
    if (std::getenv(name)) return environment_int(name, 0);
  return 0;
}

void refuse_lonely_world(World world) {
  const int tasks = launched_tasks();
  if (world.size > 1 || tasks <= 1) return;
  // Each task comes here, and none can tell the others.
  if (launched_rank() > 0) throw UserError("");
  user_error(
      "{} tasks were launched, but MPI gives this one a world of its own: each would do the whole "
      "work by itself. Expected one world of {}; under SLURM use `srun --mpi=pmix` or `mpirun` in "
      "the job script, and elsewhere the `mpirun` of the Open MPI this program is linked with",
      tasks, tasks);
}

void expect_ranks(World world, int64_t ranks) {
  if (ranks > 0 && world.size != ranks)
    throw AgreedError(
        fmt::format("parallel.ranks: got {}, but the run was started on {} rank{}; start it by "
                    "`mpirun -np {}`, or leave the key out",
                    ranks, world.size, world.size == 1 ? "" : "s", ranks));
  const int tasks = environment_int("SLURM_NTASKS", 1);
  const bool launched = std::getenv("OMPI_COMM_WORLD_SIZE") || std::getenv("PMI_SIZE");
  if (ranks == 0 && world.size == 1 && !launched && tasks > 1)
    throw AgreedError(
        fmt::format("the SLURM job has {} tasks, but this is one process that nothing launched: "
                    "expected `mpirun` or `srun --mpi=pmix` before the program; for one rank "
                    "alone give parallel.ranks=1",
                    tasks));
}

void refuse_several_ranks(std::string_view command) {
  const int tasks = launched_tasks();
  if (tasks <= 1) return;
  const std::string message = fmt::format(
      "`{}` runs as one process, but {} tasks were launched; run `kuaitrain {}` without mpirun or "
      "srun, or with one task",
      command, tasks, command);
  try {
    if (!session) MpiSession::start();  // only so that rank 0 alone says it
  } catch (const UserError&) {
    throw UserError(message);
  }
  throw AgreedError(message);
}

MpiSession& MpiSession::start() {
  if (session) return *session;
  // Never destroyed: what it holds may not be freed once MPI has ended.
  static auto& started = *new MpiSession;
  started.host_ = host_name();
  watchdog_start({launched_rank(), launched_tasks()}, started.host_, kStartTimeout_s);
  const Phase phase("start of MPI");
  if (!has_pmi()) refuse_lonely_world({launched_rank(), 1});

  // Without a launcher Open MPI would start a daemon beside us, for work we never ask of it.
  setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
  // Alone, no network is asked for: to find that there is none takes a quarter of a second.
  if (launched_tasks() == 1) setenv("OMPI_MCA_pml", "ob1", 0);
  // Between ranks of a host, messages up to this size (bytes) go without a handshake: dense gradients of a small MLP.
  setenv("OMPI_MCA_btl_vader_eager_limit", "32768", 0);
  int provided = MPI_THREAD_SINGLE;
  {
    StartVariables variables;
    // Processes that start alone at the same time race for one session directory, of which they have no use.
    if (!has_pmi()) variables.set("OMPI_MCA_orte_create_session_dirs", "0");
    // Alone, there are no network cards to choose among: to look for them takes a third of a small run.
    if (launched_tasks() == 1) {
      variables.set("HWLOC_COMPONENTS", "-linuxio");
      variables.set("HWLOC_PLUGINS_PATH", "/dev/null");
    }
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided),
              "MPI_Init_thread");
  }
  session = &started;
  KT_CHECK(provided >= MPI_THREAD_SERIALIZED, "this MPI is for one thread alone");
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  World world;
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &world.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &world.size), "MPI_Comm_size");
  watchdog_start(world, started.host_, kStartTimeout_s);

  started.communicator_ = std::make_unique<MpiCommunicator>(MPI_COMM_WORLD);
  started.ending_ = std::make_unique<MpiCommunicator>(MPI_COMM_WORLD);
  watchdog_share(*started.ending_, this_host());
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &node),
      "MPI_Comm_split_type");
  check_mpi(MPI_Comm_rank(node, &started.node_.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(node, &started.node_.size), "MPI_Comm_size");
  check_mpi(MPI_Comm_free(&node), "MPI_Comm_free");

  refuse_lonely_world(world);
  return started;
}

MpiSession* MpiSession::running() { return session; }

void MpiSession::finish() {
  KT_CHECK(session == this, "MPI is ended twice");
  watchdog_set_timeout(std::min(watchdog_timeout(), kFinishTimeout_s));
  {
    const Phase phase("MPI_Finalize");
    check_mpi(MPI_Finalize(), "MPI_Finalize");
  }
  session = nullptr;
  watchdog_stop();
}

}  // namespace kt
