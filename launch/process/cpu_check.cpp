// Compiled for the oldest x86-64, and without anything of the C++ library: it runs before all other code.
#include "launch/process/cpu_check.h"

#include <unistd.h>

namespace kt {

void refuse_cpu() {
  static const char text[] =
      "error: this CPU lacks instructions that kuaitrain is compiled for; expected x86-64-v3 "
      "(AVX2, FMA, "
      "BMI2: Intel Haswell, AMD Zen, or newer); run it on such a machine\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
  _exit(2);
}

namespace detail {
void cpu_checked() {}

__attribute__((constructor(101))) void check_cpu() {
  __builtin_cpu_init();
  // What sets x86-64-v3 apart; these came together.
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2")) {
    refuse_cpu();
  }
}
}  // namespace detail

}  // namespace kt
