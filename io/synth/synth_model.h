#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

#include "io/synth/synth.h"
#include "launch/base/parallel_for.h"
#include "launch/base/random.h"

/// The planted model behind the synthetic replica; internal to io/synth*.cpp.
namespace kt::synth {

// exp and log from IEEE operations alone, so that the bytes of a replica do not depend on a libm.
double exp(double x);
double log(double x);

/// What a draw of the replica is for. The values are part of its bytes.
enum class Use : uint64_t {
  kUserRows = 1,
  kVideoRows,
  kSmallUsers,
  kSmallVideos,
  kTaste,
  kUserBias,
  kUserSpread,
  kVideoAppeal,
  kTagCount,
  kTags,
  kTagTaste,
  kDuration,
  kDurationShift,
  kAuthor,
  kMusic,
  kPair,
  kRepeat,
  kEvent,
  kDuplicate,
  kHole,
  kCell,
  kUserFeature,
  kCaption,
  kDaily,
  kDailyRow,
  kSocial,
  kReference,
};

/// The draws of one (use, index): a pure function of the counter.
class Draws {
 public:
  Draws(uint64_t seed, Use use, int64_t index)
      : key_(random_bits(seed, Purpose::kSynthetic, static_cast<uint64_t>(use),
                         static_cast<uint64_t>(index))) {}
  uint64_t bits(int64_t counter) const { return mix(key_ ^ static_cast<uint64_t>(counter)); }
  /// In (0, 1): never 0, so that a logarithm may follow.
  double uniform(int64_t counter) const { return to_uniform(bits(counter)) + 0x1p-54; }
  /// Integer in [0, n).
  int64_t below(int64_t counter, int64_t n) const {
    return static_cast<int64_t>(to_uniform(bits(counter)) * static_cast<double>(n));
  }
  /// Mean 0, variance 1, bell-shaped: twelve 16-bit uniforms. Uses counters 3c..3c+2.
  double normal(int64_t counter) const;

 private:
  uint64_t key_;
};

/// A quantile function: linear between knots (p ascending from 0 to 1).
using Curve = std::vector<std::pair<double, double>>;
double at(const Curve& curve, double p);
/// As `at`, but linear in the logarithm of the values.
double at_log(const Curve& curve, double p);

/// A random permutation of 0..n-1: the rank of every element. Equal quantiles for every seed come from ranks.
std::vector<int64_t> random_ranks(uint64_t seed, Use use, int64_t salt, int64_t n);
/// A class for each of n elements; the shares are exactly `weights`, up to rounding.
std::vector<int32_t> random_classes(uint64_t seed, Use use, int64_t salt, int64_t n,
                                    const std::vector<double>& weights);
/// Integers >= 0 in proportion to `weights` that add up to `total`.
std::vector<int64_t> shares(const std::vector<double>& weights, int64_t total);

inline constexpr int64_t kTasteSize = 6;
using Taste = std::array<float, kTasteSize>;

struct User {
  Taste taste;
  double bias;                    ///< added to every score
  double spread_up, spread_down;  ///< scale of the noise: how far this user lingers, how soon skips
  int64_t rows;                   ///< rows of the big matrix, duplicates included
  int64_t duplicates, event_duplicates;
  int32_t small_index;  ///< row of the block, or -1
  int64_t events() const { return rows - duplicates - event_duplicates; }
};

struct Video {
  Taste taste;
  double appeal;         ///< added to every score
  double log_weight;     ///< of being shown
  double repeat_weight;  ///< of being watched again
  int32_t duration_ms;
  int32_t second_duration_ms,
      third_duration_ms;  ///< other values that occur; the same when constant
  int32_t small_index;    ///< column of the block, or -1
  int32_t author, music;
  int32_t tags[4];
  int32_t tag_count;
};

/// Play time as a function of a score: the score's distribution mapped on a quantile function of play time.
class PlayCurve {
 public:
  struct Score {
    double mean, spread_up, spread_down;
  };
  /// `scores`: a sample of what will be looked up. `knots`: play milliseconds by share.
  PlayCurve(const std::vector<Score>& scores, const Curve& knots);
  /// Units: milliseconds.
  double at(double score) const;

 private:
  double low_, step_;
  std::vector<double> play_;
};

/// Everything that is decided before rows are written.
struct Model {
  uint64_t seed;
  double scale;
  SynthSizes sizes;
  std::vector<User> users;
  std::vector<Video> videos;
  std::vector<int32_t> small_users, small_videos;  ///< ids, ascending
  std::vector<int64_t> pair_begin;                 ///< [users + 1] into `pairs`
  std::vector<int32_t> pairs;  ///< the distinct videos of each user in the big matrix
  int64_t most_active;         ///< the user with most rows
  // The largest watch ratio of each matrix is planted at its shortest video.
  int64_t shortest_video, shortest_watcher, shortest_small_video, shortest_small_watcher;
  std::vector<uint8_t> missing;  ///< [small_users * small_videos] 1: not in the small matrix

  /// What moves play time before noise.
  double score(int64_t user, int64_t video) const;
  /// The play time of one event, with its noise. Units: milliseconds.
  double play(const PlayCurve& curve, int64_t user, int64_t video, double uniform) const;
};

Model plan_model(const SynthOptions& options, ThreadPool& pool);
PlayCurve big_play_curve(const Model& model);
PlayCurve small_play_curve(const Model& model);

}  // namespace kt::synth
