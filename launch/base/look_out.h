#pragma once

#include <immintrin.h>
#include <sched.h>

#include <chrono>

namespace kt {

/// How long a thread or rank looks for what it waits for before it sleeps: about as long as what lies between two pieces
/// of a training step. To wake up takes longer than most of them.
inline constexpr auto kLookOut = std::chrono::microseconds(50);

/// Waits for `done` without sleeping; after the first tenth others who want the processor get it. False when it has not
/// come in time.
template <class Done>
bool look_out(Done&& done) {
  if (done()) return true;
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (auto now = start; now < start + kLookOut; now = Clock::now()) {
    if (now > start + kLookOut / 10) sched_yield();
    for (int k = 0; k < 16; ++k) {
      if (done()) return true;
      _mm_pause();
    }
  }
  return done();
}

}  // namespace kt
