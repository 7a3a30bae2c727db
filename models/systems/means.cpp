#include "models/systems/means.h"

#include "models/systems/common_options.h"

namespace kt {
namespace {

OptionDeclaration user_weight() {
  return number_option("user_weight", 3, {0, 1e9},
                       "rows that the mean counts for beside a user's own");
}
OptionDeclaration video_weight() {
  return number_option("video_weight", 1, {0, 1e9},
                       "rows that the mean counts for beside a video's own");
}

OptionDeclaration shrink() {
  return word_option("shrink", "weight", {"weight", "moments"},
                     "how far means are pulled to that of all: by the weight, or, weight aside, by "
                     "what rows tell of the variances inside and between groups");
}

/// One graph for all: what a system does not find stays 0.
System make(const SystemInputs& inputs, const MeansFit& fit, const Objective& objective) {
  Layers m;
  add_means(m, inputs);
  return {std::move(m), objective, fit};
}

std::vector<OptionDeclaration> none() { return {}; }
std::vector<OptionDeclaration> of_users() { return {user_weight(), shrink()}; }
std::vector<OptionDeclaration> of_videos() { return {video_weight(), shrink()}; }
std::vector<OptionDeclaration> of_both() {
  const MeansFit standard = additive_means_fit();
  OptionDeclaration users = user_weight(), videos = video_weight();
  users.default_value = standard.user_weight;
  videos.default_value = standard.video_weight;
  return {users, videos,
          whole_option("sweeps", standard.sweeps, {1, 10000}, "times both are found in turn")};
}
std::vector<OptionDeclaration> of_popularity() {
  return {word_option("by", "count", {"count", "rate"}, "what of a video's positives is its score"),
          number_option("threshold", 1, {-1e30, 1e30}, "the least label that is a positive"),
          video_weight()};
}

System global_mean(const OptionValues&, const SystemInputs& inputs) { return make(inputs, {}, {}); }
System user_mean(const OptionValues& values, const SystemInputs& inputs) {
  return make(inputs,
              {.users = true,
               .user_weight = values.number("user_weight"),
               .by_moments = values.word("shrink") == "moments"},
              {});
}
System video_mean(const OptionValues& values, const SystemInputs& inputs) {
  return make(inputs,
              {.videos = true,
               .video_weight = values.number("video_weight"),
               .by_moments = values.word("shrink") == "moments"},
              {});
}
System additive_means(const OptionValues& values, const SystemInputs& inputs) {
  return make(inputs,
              {.users = true,
               .videos = true,
               .user_weight = values.number("user_weight"),
               .video_weight = values.number("video_weight"),
               .sweeps = values.whole("sweeps")},
              {});
}
System popularity(const OptionValues& values, const SystemInputs& inputs) {
  return make(inputs,
              {.videos = true,
               .counts = values.word("by") == "count",
               .video_weight = values.number("video_weight")},
              {.target = TargetKind::kPositive, .threshold = values.number("threshold")});
}

}  // namespace

MeansFit additive_means_fit() {
  return {.users = true, .videos = true, .user_weight = 10, .video_weight = 1, .sweeps = 5};
}

int add_means(Layers& graph, const SystemInputs& inputs) {
  const int user = graph.user_table(kUserMeans, inputs.users, 1, 0);
  const int video = graph.item_table(kVideoMeans, inputs.items, 1, 0);
  return graph.bias(kMeanOfAll, graph.add(user, video));
}

std::vector<SystemEntry> means_entries() {
  return {
      {"global_mean", "the mean of all training rows", none, global_mean},
      {"user_mean", "the mean of a user's rows, shrunk", of_users, user_mean},
      {"video_mean", "the mean of a video's rows, shrunk", of_videos, video_mean},
      {"additive_means", "means of users and of videos, added and shrunk", of_both, additive_means},
      {"popularity", "a video's positives, an order alone", of_popularity, popularity}};
}

}  // namespace kt
