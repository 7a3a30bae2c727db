#pragma once

#include <cmath>
#include <cstdint>

#include "launch/base/host_device.h"

/// Counter-based random numbers: every draw is a pure function of (seed, purpose, a, b), so it depends
/// neither on ranks, threads nor on the order of the draws.
namespace kt {

/// What a draw is for; two purposes never share a stream. The values are part of a run's bits.
enum class Purpose : uint64_t {
  kValidationSplit = 1,  ///< a = row ordinal
  kEpochOrder = 2,       ///< a = epoch, b = shard
  kDropout = 3,          ///< a = epoch, b = row ordinal; further words by `mix`
  kInitialWeights = 4,   ///< a = parameter array, b = element
  kSynthetic = 5,        ///< the synthetic replica (io/synth)
  kFirstOrder = 6,       ///< a = shard
  kLabelFold = 7,        ///< a = user, b = item
  kNegatives = 8,        ///< a = epoch, b = row ordinal; further ones by `mix`
  kBootstrap = 9,        ///< a = replicate, b = user
  kBootstrapRuns = 10,   ///< a = replicate, b = draw
  kSweep = 11,           ///< a = trial, b = hash of the parameter
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

/// Dropout of one row: a key, and for each column 16 bits of a hash of it. Drawn so that 16 lanes of 32 bits give
/// 32 columns. Source of the hash: the finaliser of MurmurHash3 (A. Appleby).
KT_HOST_DEVICE constexpr uint32_t dropout_key(uint64_t seed, uint64_t epoch, uint32_t row) {
  return static_cast<uint32_t>(random_bits(seed, Purpose::kDropout, epoch, row) >> 32);
}
/// Of row k of the group that a sample makes.
KT_HOST_DEVICE constexpr uint32_t dropout_key_of_group(uint64_t seed, uint64_t epoch, uint32_t row,
                                                       int64_t k) {
  return static_cast<uint32_t>(
      mix(uint64_t{dropout_key(seed, epoch, row)} + static_cast<uint64_t>(k)) >> 32);
}
KT_HOST_DEVICE constexpr uint32_t dropout_word(uint32_t key, uint32_t counter) {
  uint32_t x = key + counter * 0x9e3779b9u;
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}
/// A column is dropped when its 16 bits are below this; the probability is rounded to that.
KT_HOST_DEVICE constexpr uint32_t dropout_threshold(double probability) {
  return static_cast<uint32_t>(probability * 65536 + .5);
}
/// The factor of what is kept: 1 / (1 - the rounded probability).
KT_HOST_DEVICE constexpr float dropout_kept(double probability) {
  return static_cast<float>(65536.0 / (65536.0 - dropout_threshold(probability)));
}
KT_HOST_DEVICE constexpr float dropout_factor(uint32_t key, int64_t column, uint32_t threshold,
                                              float kept) {
  const auto c = static_cast<uint32_t>(column);
  const uint32_t word = dropout_word(key, c / 32 * 16 + c % 16);
  return (c / 16 % 2 == 0 ? word & 0xffffu : word >> 16) < threshold ? 0.f : kept;
}

/// Uniform in [0, 1), 53 bits.
KT_HOST_DEVICE constexpr double to_uniform(uint64_t bits) {
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace kt
