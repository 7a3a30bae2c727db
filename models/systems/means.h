#pragma once

#include <vector>

#include "models/systems/system.h"

namespace kt {

/// Systems without a gradient, found in one step over all training rows (trainer/steps/means_step.h). A score is
/// mean + b_user + b_video:
///   global_mean     the mean alone
///   user_mean       and the user's part:  b = sum of (target - mean) / (rows + weight)
///   video_mean      and the video's, likewise
///   additive_means  both: in turn, each from what the other one leaves
///   popularity      a video's positives, counted, or their share, shrunk by `video_weight` rows: an order alone
/// Source: Morris and Lysy, arXiv 1203.5610 (shrinkage); the weights are options,
/// or found by moments (models/features/shrinkage.h).
std::vector<SystemEntry> means_entries();

/// The arrays that means are found in.
inline constexpr const char *kUserMeans = "user", *kVideoMeans = "video", *kMeanOfAll = "mean";
/// For systems of what additive means leave: how these are found, and the layer that adds them up.
MeansFit additive_means_fit();
int add_means(Layers& graph, const SystemInputs& inputs);

}  // namespace kt
