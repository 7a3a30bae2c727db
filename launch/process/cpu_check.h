#pragma once

namespace kt {

/// Ends the process with exit code 2 and a message. Called before anything else runs, on a CPU that lacks
/// what this program is compiled for (x86-64-v3: AVX2, FMA, BMI2).
[[noreturn]] void refuse_cpu();

namespace detail {
/// Does nothing; a call links the check in.
void cpu_checked();
}  // namespace detail

}  // namespace kt
