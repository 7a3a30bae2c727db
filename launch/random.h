#pragma once

#include <cmath>
#include <cstdint>

#include "launch/host_device.h"

/// Counter-based random numbers: every draw is a pure function of (seed, purpose, a, b), so it depends
/// neither on ranks, threads nor on the order of the draws.
namespace kt {

/// What a draw is for; two purposes never share a stream. The values are part of a run's bits.
enum class Purpose : uint64_t {
  kValidationSplit = 1,  ///< a = row ordinal
  kRowOrder = 2,         ///< a = epoch, b = shard
  kDropout = 3,          ///< a = epoch, b = row ordinal; further words by `mix`
  kInitialWeights = 4,   ///< a = parameter array, b = element
  kSynthetic = 5,        ///< the synthetic replica (io/synth)
};

/// The finaliser of SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014, with Stafford's variant 13 of the constants.
KT_HOST_DEVICE constexpr uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// 64 random bits for (seed, purpose, a, b).
KT_HOST_DEVICE constexpr uint64_t random_bits(uint64_t seed, Purpose purpose, uint64_t a,
                                              uint64_t b = 0) {
  return mix(mix(mix(mix(seed) ^ static_cast<uint64_t>(purpose)) ^ a) ^ b);
}

/// Uniform in [0, 1), 53 bits.
KT_HOST_DEVICE constexpr double to_uniform(uint64_t bits) {
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace kt
