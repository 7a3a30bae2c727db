#include "launch/process/cpus.h"

#include <sched.h>

#include "launch/base/errors.h"
#include "launch/base/log.h"

namespace kt {

int usable_cpus() {
  // A machine may have more processors than a cpu_set_t holds; then the call fails and a larger set is tried.
  for (int capacity = CPU_SETSIZE; capacity <= (1 << 20); capacity *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(capacity));
    KT_CHECK(set != nullptr);
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(capacity));
    const int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
  return 1;
}

std::string thread_warning(int threads, int cpus) {
  if (threads <= cpus) return {};
  return fmt::format(
      "parallel.threads = {}, but each rank may use {} processor{}: more threads gain nothing; "
      "give "
      "`--bind-to none` to mpirun (which binds a rank to one core by default), or fewer threads",
      threads, cpus, cpus == 1 ? "" : "s");
}

void check_threads(World world, int threads) {
  const std::string warning = thread_warning(threads, usable_cpus());
  if (world.rank == 0 && !warning.empty()) log_line(LogLevel::kWarning, warning);
}

}  // namespace kt
