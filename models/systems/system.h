#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "launch/base/options.h"
#include "launch/base/random.h"
#include "models/features/columns.h"
#include "models/graph/layers.h"
#include "models/graph/objective.h"
#include "models/trees/trees.h"

namespace kt {

/// What a system needs to know of the data set to declare its parameters.
struct SystemInputs {
  int64_t users = 0, items = 0;
  int64_t users_with_rows = 0, items_with_rows = 0;  ///< in training
  std::array<int64_t, kSides> columns{};             ///< of each side
  /// The first columns of a side may be codes, to be embedded: how many codes each has. Shapes: [side][code columns].
  std::array<std::vector<int64_t>, kSides> codes{};
};

/// Means of users and videos, found in one step over all training rows (trainer/steps/means_step.h).
struct MeansFit {
  bool users = false, videos = false;        ///< whose
  bool counts = false;                       ///< of videos: sums of targets instead
  double user_weight = 0, video_weight = 0;  ///< rows that the mean of all counts for
  bool by_moments = false;                   ///< so many as the rows themselves tell instead
  int64_t sweeps = 1;                        ///< of both in turn
};

/// Alternating least squares (models/systems/als.h; trainer/steps/als_step.h).
struct AlsFit {
  double regularization = 0, frequency = 0, unobserved = 0;
  bool unshown_alone = false;    ///< pairs that `unobserved` weighs: those without rows; else all
  bool exclude_block = false;    ///< none of the users and videos of the test table
  bool positives_alone = false;  ///< rows that count: from `threshold` on; else all
  double threshold = 0;
  double base = 0, alpha = 0;  ///< weight of a row: base + alpha * clipped label
  int64_t block = 0;           ///< factors found at a time
};

/// The graph's tables are not trained themselves: they are the means of layers 0 .. `layers`, a layer being the one before
/// propagated over the edges between users and videos (sharding/propagation.h; trainer/steps/propagated_tables.h).
struct PropagationFit {
  static constexpr const char *kUsers = "user", *kVideos = "video";  ///< the tables
  int64_t layers = 0;
  bool positives_alone = false;  ///< pairs that are edges: of `threshold` and above; else all shown
  double threshold = 0;          ///< the mean of the pair's clipped labels
  std::array<ParameterSpec, 2> layer0;  ///< of users and of videos: what is trained
};

/// A closed form from the Gram matrix of the training rows, found in one step (trainer/steps/gram_step.h).
struct GramFit {
  int64_t rank = 0;            ///< of its eigenvectors; 0: by its inverse
  double regularization = 0;   ///< of the inverse
  bool exclude_block = false;  ///< weights of tested items from users who are not tested
};

/// An encoder: a user's history, through dense layers, is the user's columns of the graph (models/systems/autoencoder.h;
/// trainer/steps/autoencoder_step.h).
struct EncoderFit {
  std::vector<int64_t> hidden;  ///< widths of the layers; the last is that of the user's columns
  double dropout = 0;           ///< of the first and the last of them
  double input_dropout = 0;     ///< of what is read of a history
  bool shown_alone =
      false;  ///< outputs of items in the history alone have a loss; else all, with target 0
  bool signed_input = false;          ///< a target of 0 is read as -1
  std::vector<ParameterSpec> arrays;  ///< beside those of the graph

  /// What the encoder's row of an item is multiplied by.
  float input_of(float target) const { return signed_input ? 2 * target - 1 : target; }
  /// In training: `key` of the user (launch/base/random.h).
  float input_of(float target, uint32_t key, int32_t item) const {
    return input_of(target) *
           dropout_factor(key, item, dropout_threshold(input_dropout), dropout_kept(input_dropout));
  }
};

/// Gradient-boosted trees over all columns of a row: its user's, its item's, its own (models/systems/gbdt.h;
/// trainer/steps/trees_step.h). Numbers of a tree, unless said otherwise.
struct TreesFit {
  TreesShape shape;
  double learning_rate = 0;
  int64_t leaf_rows = 0;    ///< of a leaf, at least
  double column_share = 1;  ///< of the columns, drawn for each
  double l2 = 0;            ///< added to a leaf's rows
  bool ranks = false;       ///< finds an order of a user's rows, not their targets

  std::vector<ParameterSpec> arrays() const {
    const auto array = [](const char* name, int64_t rows, int64_t cols) {
      return ParameterSpec{.name = name, .rows = rows, .cols = cols, .trained = false};
    };
    return {array(kSplits, shape.splits(), kSplitNumbers),
            array(kLeafValues, shape.trees, shape.leaves)};
  }
  static constexpr const char *kSplits = "splits", *kLeafValues = "leaf_values";
};

/// What turns play times into targets and outputs into play times: of the training rows (trainer/features/play_times.h).
struct WatchTimeFit {
  int64_t ranges = 0, steps = 0;  ///< kPlayShare: of duration; between quantiles of play times
  std::shared_ptr<std::vector<float>> levels{};  ///< kLevels: what Objective::levels points to
};

/// How outputs come of a row, what they are to be, and how that is brought about.
struct System {
  Layers graph;
  Objective objective;
  // Found over all training rows, the means first; none of them nor `trees`: by gradients of batches of rows.
  std::optional<MeansFit> means{};
  std::optional<AlsFit> als{};
  std::optional<GramFit> gram{};
  bool profiles = false;  ///< of users, over the columns of items (models/systems/cosine.h)
  /// By gradients of batches of rows, back through the propagation.
  std::optional<PropagationFit> propagation{};
  /// By gradients of batches of users, after the means.
  std::optional<EncoderFit> encoder{};
  /// A score reads the training rows of its user: what these say of an item, by an array beside those of the graph,
  /// [items, items with training rows], is the one column of a row (trainer/evaluation/history_scores.h).
  std::optional<ParameterSpec> history_weights{};
  /// What trees make of all columns of a row is its one column in the graph (trainer/evaluation/tree_scores.h).
  std::optional<TreesFit> trees{};
  /// Its outputs stand for play times (docs/watch-time.md).
  std::optional<WatchTimeFit> watch_time{};

  /// Steps of an epoch, where each is over all rows; 0: they are over batches.
  int64_t steps_of_all_rows() const {
    return als ? 2 : encoder ? 0 : means || gram || profiles || trees ? 1 : 0;
  }
  /// Whether a score reads the training rows of its user.
  bool reads_history() const { return history_weights || encoder; }
};

/// A system as the registry lists it. Options are declared beside what they are for.
struct SystemEntry {
  const char* name;
  const char* about;
  std::vector<OptionDeclaration> (*options)();
  System (*make)(const OptionValues&, const SystemInputs&);
  /// What it reads of tables and label means; null: nothing.
  std::vector<Column> (*columns)(const OptionValues&) = nullptr;
  /// Whether it reads the content of videos (models/features/content_features.h); null: no.
  bool (*content)(const OptionValues&) = nullptr;
};

}  // namespace kt
