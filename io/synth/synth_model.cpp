#include "io/synth/synth_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "io/synth/synth_text.h"
#include "launch/base/errors.h"

namespace kt::synth {

namespace {
constexpr double kLn2 = 0.69314718055994530942;
constexpr auto kInverseFactorial = [] {
  std::array<double, 13> values{1};
  double factorial = 1;
  for (size_t n = 1; n < values.size(); ++n) {
    factorial *= static_cast<double>(n);
    values[n] = 1 / factorial;
  }
  return values;
}();
constexpr double kInverseOdd[] = {1.0 / 15, 1.0 / 13, 1.0 / 11, 1.0 / 9,
                                  1.0 / 7,  1.0 / 5,  1.0 / 3,  1};

// Shares of the variance of a score; the rest is noise. A user's bias makes about a tenth of log play.
constexpr double kUserShare = 0.18, kTasteShare = 0.22, kAppealShare = 0.01;
constexpr double kNoise = 0.7681;  // sqrt(1 - the shares)
// The logarithm of a user's spreads: where it begins, its range, and how far the two go together.
constexpr double kLeastSpread = -1.15, kSpreadRange = 2.6, kSpreadDown = 0.7, kSpreadTie = 0.7;
constexpr double kShorterUnseen = 0.33;
constexpr double kSelection = 0.25;                        // how much taste decides what is shown
constexpr double kLogisticDeviation = 1.8137993642342178;  // pi / sqrt(3)
constexpr double kLargestPairShare = 0.62;                 // of the videos a user may see

// Quantiles at scale 1. Source: the distributions published for KuaiRec 2.0; the knots between the published
// ones are fitted, see docs/synthetic-data.md.
const Curve kRowsPerUser = {{0, 100},    {.05, 260},  {.25, 888},   {.5, 1858},      {.75, 2475},
                            {.95, 3080}, {.99, 3700}, {.999, 5300}, {.99993, 16015}, {1, 16015}};
const Curve kRowsPerVideo = {{0, 1},        {.05, 6},        {.25, 50},   {.5, 212},
                             {.75, 1080},   {.9, 3750},      {.97, 6100}, {.99, 7600},
                             {.999, 13000}, {.99995, 34000}, {1, 34000}};
const Curve kDuration = {{0, 2000},      {.001, 2700}, {.01, 4600},  {.02, 5300},  {.05, 6080},
                         {.1, 6550},     {.25, 7610},  {.5, 9920},   {.75, 12370}, {.8, 13300},
                         {.85, 15300},   {.9, 22000},  {.95, 46000}, {.98, 76000}, {.99, 104000},
                         {.999, 190000}, {1, 290000}};
const Curve kSmallDuration = {{0, 3067},    {.01, 4650},   {.02, 5280},    {.05, 5930},
                              {.1, 6330},   {.25, 7523},   {.5, 9600},     {.75, 11934},
                              {.8, 13255},  {.85, 16700},  {.9, 23500},    {.95, 46500},
                              {.98, 79000}, {.99, 112000}, {.999, 210000}, {1, 294520}};
const Curve kPlaySmall = {{0, 0},         {.0068, 0},      {.01, 516},   {.02, 1022},
                          {.05, 2008},    {.1, 3680},      {.25, 5835},  {.4, 6950},
                          {.5, 7589},     {.6, 8290},      {.75, 9900},  {.9, 12767},
                          {.95, 15807},   {.98, 23061},    {.99, 31403}, {.995, 43926},
                          {.999, 117000}, {.9999, 620000}, {1, 1800000}};
const Curve kPlayBig = {{0, 0},         {.012, 0},       {.03, 500},   {.05, 800},   {.1, 1650},
                        {.25, 4230},    {.4, 6600},      {.5, 7290},   {.6, 8500},   {.75, 10380},
                        {.9, 15000},    {.95, 19700},    {.98, 30500}, {.99, 42500}, {.995, 62000},
                        {.999, 187000}, {.9999, 760000}, {1, 999639}};
// Videos with each of the 31 tags.
const std::vector<double> kTagWeights = {24,   463, 216, 104, 164, 964, 912,  503, 1112, 696, 170,
                                         2027, 534, 245, 63,  374, 214, 350,  131, 686,  265, 29,
                                         20,   39,  12,  468, 490, 31,  1360, 5,   22};

double logit(double p) { return log(p) - log(1 - p); }

int64_t scaled(double count, double factor) { return static_cast<int64_t>(count * factor + 0.5); }
}  // namespace

double exp(double x) {
  if (x < -700) return 0;
  if (x > 700) x = 700;
  const double turns = x * (1 / kLn2);
  const int64_t k = static_cast<int64_t>(turns < 0 ? turns - 0.5 : turns + 0.5);
  const double r = x - static_cast<double>(k) * kLn2;
  double sum = kInverseFactorial[12];
  for (size_t n = 12; n-- > 0;) sum = sum * r + kInverseFactorial[n];
  return sum * std::bit_cast<double>(static_cast<uint64_t>(k + 1023) << 52);
}

double log(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1) / (m + 1), q = s * s;
  double sum = 1.0 / 17;
  for (const double inverse : kInverseOdd) sum = sum * q + inverse;
  return 2 * s * sum + static_cast<double>(exponent) * kLn2;
}

double Draws::normal(int64_t counter) const {
  uint64_t sum = 0;
  for (int64_t word = 3 * counter; word < 3 * counter + 3; ++word) {
    const uint64_t x = bits(word);
    sum += (x & 0xffff) + ((x >> 16) & 0xffff) + ((x >> 32) & 0xffff) + (x >> 48);
  }
  return (static_cast<double>(sum) + 6) * 0x1p-16 - 6;
}

double at(const Curve& curve, double p) {
  size_t k = 1;
  while (k + 1 < curve.size() && curve[k].first < p) ++k;
  const auto [p0, x0] = curve[k - 1];
  const auto [p1, x1] = curve[k];
  return x0 + (x1 - x0) * (p - p0) / (p1 - p0);
}

double at_log(const Curve& curve, double p) {
  size_t k = 1;
  while (k + 1 < curve.size() && curve[k].first < p) ++k;
  const auto [p0, x0] = curve[k - 1];
  const auto [p1, x1] = curve[k];
  return x0 * exp(log(x1 / x0) * (p - p0) / (p1 - p0));
}

std::vector<int64_t> random_ranks(uint64_t seed, Use use, int64_t salt, int64_t n) {
  const Draws draws(seed, use, salt);
  std::vector<std::pair<uint64_t, int64_t>> keys(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) keys[i] = {draws.bits(i), i};
  std::sort(keys.begin(), keys.end());
  std::vector<int64_t> ranks(static_cast<size_t>(n));
  for (int64_t r = 0; r < n; ++r) ranks[keys[r].second] = r;
  return ranks;
}

std::vector<int32_t> random_classes(uint64_t seed, Use use, int64_t salt, int64_t n,
                                    const std::vector<double>& weights) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> ranks = random_ranks(seed, use, salt, n);
  std::vector<int32_t> by_rank(static_cast<size_t>(n)), classes(static_cast<size_t>(n));
  int32_t k = 0;
  double end = weights[0];
  for (int64_t r = 0; r < n; ++r) {
    const double p = (static_cast<double>(r) + 0.5) * total / static_cast<double>(n);
    while (p > end && k + 1 < static_cast<int32_t>(weights.size())) end += weights[++k];
    by_rank[r] = k;
  }
  for (int64_t i = 0; i < n; ++i) classes[i] = by_rank[ranks[i]];
  return classes;
}

std::vector<int64_t> shares(const std::vector<double>& weights, int64_t total) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> result(weights.size());
  double passed = 0;
  int64_t given = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    passed += weights[i];
    const int64_t until = i + 1 == weights.size()
                              ? total
                              : static_cast<int64_t>(passed / sum * static_cast<double>(total));
    result[i] = until - given;
    given = until;
  }
  return result;
}

PlayCurve::PlayCurve(const std::vector<Score>& scores, const Curve& knots) {
  constexpr int64_t kPoints = 2048;
  low_ = -16;
  step_ = 40.0 / (kPoints - 1);
  play_.resize(kPoints);
  const double ceiling = 1 - 1e-8;
  for (int64_t i = 0; i < kPoints; ++i) {
    const double x = low_ + step_ * static_cast<double>(i);
    double below = 0;
    for (const Score& s : scores)
      below += 1 / (1 + exp((s.mean - x) / (x > s.mean ? s.spread_up : s.spread_down)));
    const double p = std::min(below / static_cast<double>(scores.size()), ceiling);
    size_t k = 1;
    while (k + 1 < knots.size() && knots[k].first < p) ++k;
    const auto [p0, x0] = knots[k - 1];
    const auto [p1, x1] = knots[k];
    if (p0 < 0.05 || x0 <= 0) {
      play_[i] = x0 + (x1 - x0) * (p - p0) / (p1 - p0);
    } else {
      const double l0 = logit(p0), l1 = logit(std::min(p1, ceiling));
      play_[i] = x0 * exp(log(x1 / x0) * (logit(p) - l0) / (l1 - l0));
    }
  }
}

double PlayCurve::at(double score) const {
  const double place =
      std::clamp((score - low_) / step_, 0.0, static_cast<double>(play_.size()) - 1.001);
  const size_t k = static_cast<size_t>(place);
  return play_[k] + (play_[k + 1] - play_[k]) * (place - static_cast<double>(k));
}

double Model::score(int64_t user, int64_t video) const {
  const User& u = users[user];
  const Video& v = videos[video];
  float taste = 0;
  for (int64_t k = 0; k < kTasteSize; ++k) taste += u.taste[k] * v.taste[k];
  return u.bias + v.appeal + taste;
}

double Model::play(const PlayCurve& curve, int64_t user, int64_t video, double uniform) const {
  const double noise = logit(uniform);
  const User& u = users[user];
  return curve.at(score(user, video) + noise * (noise > 0 ? u.spread_up : u.spread_down));
}

namespace {

/// Ids of one side of the block: about evenly spread over first..last of all ids, both included.
std::vector<int32_t> block_side(uint64_t seed, Use use, int64_t count, int64_t all, double first,
                                double last, double of) {
  const double factor = static_cast<double>(all) / of;
  int64_t begin = scaled(first, factor), end = scaled(last, factor) + 1;
  if (end - begin < count || end > all) begin = 0, end = all;
  std::vector<int32_t> ids;
  const Draws draws(seed, use, 0);
  // Selection sampling, the two ends taken for sure.
  for (int64_t id = begin; id < end; ++id) {
    const int64_t need = count - static_cast<int64_t>(ids.size());
    const bool end_point = id == begin || id + 1 == end;
    if (need > 0 && (end_point || (need > 1 && draws.below(id, end - 1 - id) < need - 1)))
      ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

void plan_users(Model& model) {
  const int64_t n = model.sizes.users;
  model.users.resize(static_cast<size_t>(n));
  std::vector<int64_t> ranks = random_ranks(model.seed, Use::kUserRows, 0, n);
  // The most active user stays outside the block, where there is room for its rows.
  const int64_t top = std::find(ranks.begin(), ranks.end(), n - 1) - ranks.begin();
  if (n > model.sizes.small_users) {
    int64_t outside = 0;
    while (std::binary_search(model.small_users.begin(), model.small_users.end(), outside))
      ++outside;
    std::swap(ranks[top], ranks[outside]);
  }
  model.most_active = std::find(ranks.begin(), ranks.end(), n - 1) - ranks.begin();
  std::vector<double> weights(static_cast<size_t>(n));
  const double root = static_cast<double>(n) / 7176;
  for (int64_t u = 0; u < n; ++u)
    weights[u] = std::max(
        0.0,
        at(kRowsPerUser, (static_cast<double>(ranks[u]) + 0.5) / static_cast<double>(n)) * root -
            1);
  std::vector<int64_t> rows = shares(weights, model.sizes.big_rows - n);
  std::vector<double> as_weights(static_cast<size_t>(n));
  for (int64_t u = 0; u < n; ++u) as_weights[u] = static_cast<double>(++rows[u]);
  const std::vector<int64_t> duplicates = shares(as_weights, model.sizes.big_duplicates);
  const std::vector<int64_t> event_duplicates =
      shares(as_weights, model.sizes.big_event_duplicates);
  int64_t owed = 0, event_owed = 0;
  for (int64_t u = 0; u < n; ++u) {
    User& user = model.users[u];
    const Draws taste(model.seed, Use::kTaste, u);
    for (int64_t k = 0; k < kTasteSize; ++k) user.taste[k] = static_cast<float>(taste.normal(k));
    const Draws spread(model.seed, Use::kUserSpread, u);
    // Who lingers more also skips sooner, mostly, and plays shorter in the middle.
    const double p = spread.uniform(0), q = spread.uniform(1);
    user.spread_up =
        kNoise / kLogisticDeviation * exp(kLeastSpread + kSpreadRange * p * std::sqrt(p));
    user.spread_down =
        kNoise / kLogisticDeviation *
        exp(kSpreadDown * (kSpreadTie * (2 * p - 1) + (1 - kSpreadTie) * (2 * q - 1)));
    user.bias = std::sqrt(kUserShare) * (0.8 * Draws(model.seed, Use::kUserBias, u).normal(0) -
                                         0.6 * std::sqrt(3) * (2 * p - 1));
    user.rows = rows[u];
    // A user keeps at least half of the rows as events; what does not fit goes to the next.
    owed += duplicates[u];
    user.duplicates = std::min(owed, (user.rows - 1) / 2);
    owed -= user.duplicates;
    event_owed += event_duplicates[u];
    user.event_duplicates = std::min(event_owed, user.rows - 1 - user.duplicates);
    event_owed -= user.event_duplicates;
    user.small_index = -1;
  }
  model.users[model.most_active].duplicates += owed;
  model.users[model.most_active].event_duplicates += event_owed;
  for (size_t i = 0; i < model.small_users.size(); ++i)
    model.users[model.small_users[i]].small_index = static_cast<int32_t>(i);
}

/// Rows after dropping duplicates that each video shall have, at least one.
std::vector<double> plan_videos(Model& model) {
  const int64_t n = model.sizes.videos;
  model.videos.resize(static_cast<size_t>(n));
  for (Video& video : model.videos) video.small_index = -1;
  for (size_t i = 0; i < model.small_videos.size(); ++i)
    model.videos[model.small_videos[i]].small_index = static_cast<int32_t>(i);

  const std::vector<int64_t> ranks = random_ranks(model.seed, Use::kVideoRows, 0, n);
  std::vector<int64_t> by_rank(static_cast<size_t>(n));
  std::vector<double> rows(static_cast<size_t>(n));
  const double root = static_cast<double>(n) / 10728;
  for (int64_t v = 0; v < n; ++v) {
    by_rank[ranks[v]] = v;
    rows[v] = std::max(1.0, root * at_log(kRowsPerVideo, (static_cast<double>(ranks[v]) + 0.5) /
                                                             static_cast<double>(n)));
  }
  // Durations run through their quantiles by a golden-ratio sequence over the popularity ranks, so that they
  // are independent of popularity and keep their quantiles when weighted by rows.
  double inside = Draws(model.seed, Use::kDuration, 0).uniform(0), outside = inside;
  const auto next = [](double& p) {
    return p = p + 0.6180339887498949 - (p + 0.6180339887498949 >= 1 ? 1 : 0);
  };
  for (int64_t v : by_rank) {
    Video& video = model.videos[v];
    double ms = 0;
    if (video.small_index >= 0) {
      ms = at_log(kSmallDuration, next(inside));
    } else {
      // What few people are shown is shorter; it hardly counts in rows.
      const double rank = (static_cast<double>(ranks[v]) + 0.5) / static_cast<double>(n);
      ms = at_log(kDuration, next(outside)) * exp(kShorterUnseen * (rank - 0.95));
    }
    video.duration_ms = static_cast<int32_t>(ms + 0.5);
  }
  // The extremes are there at every scale: the shortest has a few rows, so that one ratio shows in its mean.
  const auto duration_less = [&](int64_t a, int64_t b) {
    return model.videos[a].duration_ms < model.videos[b].duration_ms;
  };
  std::vector<int64_t> outsiders;
  for (int64_t v : by_rank)
    if (model.videos[v].small_index < 0) outsiders.push_back(v);
  model.videos[*std::max_element(outsiders.begin(), outsiders.end(), duration_less)].duration_ms =
      315072;
  model.shortest_video = outsiders[outsiders.size() * 6 / 100];
  model.videos[model.shortest_video].duration_ms = 140;
  model.shortest_small_video =
      *std::min_element(model.small_videos.begin(), model.small_videos.end(), duration_less);
  model.videos[model.shortest_small_video].duration_ms = 3067;

  const std::vector<int32_t> tag_counts =
      random_classes(model.seed, Use::kTagCount, 0, n, {8970, 1562, 185, 11});
  const std::vector<int32_t> first_tags = random_classes(model.seed, Use::kTags, 0, n, kTagWeights);
  double weight_sum = 0;
  for (double w : kTagWeights) weight_sum += w;
  for (int64_t v = 0; v < n; ++v) {
    Video& video = model.videos[v];
    video.tag_count = tag_counts[v] + 1;
    video.tags[0] = first_tags[v];
    const Draws more(model.seed, Use::kTags, v + 1);
    int64_t counter = 0;
    for (int32_t i = 1; i < video.tag_count;) {
      double p = more.uniform(counter++) * weight_sum;
      int32_t tag = 0;
      while (tag < 30 && p > kTagWeights[tag]) p -= kTagWeights[tag++];
      if (std::find(video.tags, video.tags + i, tag) == video.tags + i) video.tags[i++] = tag;
    }
    const Draws own(model.seed, Use::kTaste, n + model.sizes.users + v),
        centre(model.seed, Use::kTagTaste, video.tags[0]);
    const double size = std::sqrt(kTasteShare / static_cast<double>(kTasteSize));
    for (int64_t k = 0; k < kTasteSize; ++k)
      video.taste[k] = static_cast<float>(size * (0.6 * centre.normal(k) + 0.8 * own.normal(k)));
    video.appeal = std::sqrt(kAppealShare) * Draws(model.seed, Use::kVideoAppeal, v).normal(0);
    // A third of the videos show other durations as well, less than a hundredth apart.
    const Draws shift(model.seed, Use::kDurationShift, v);
    const int32_t most = video.duration_ms / 120;
    const bool several = shift.uniform(0) < 0.352 && most > 0;
    video.second_duration_ms =
        video.duration_ms + (several ? 1 + static_cast<int32_t>(shift.below(1, most)) : 0);
    video.third_duration_ms =
        several && shift.uniform(2) < 0.4
            ? video.duration_ms + 1 + static_cast<int32_t>(shift.below(3, most))
            : video.duration_ms;
  }
  // Nearly as many authors and pieces of music as videos: the first of a random order bring their own.
  const auto owners = [&](Use use, double of) {
    const std::vector<int64_t> order = random_ranks(model.seed, use, 0, n);
    const int64_t count = std::max<int64_t>(1, scaled(of, root));
    const Draws draws(model.seed, use, 1);
    std::vector<int32_t> owner(static_cast<size_t>(n));
    for (int64_t v = 0; v < n; ++v) {
      const double p = draws.uniform(v);
      owner[v] = static_cast<int32_t>(
          order[v] < count ? order[v] : static_cast<int64_t>(p * p * static_cast<double>(count)));
    }
    return owner;
  };
  const std::vector<int32_t> authors = owners(Use::kAuthor, 8369),
                             music = owners(Use::kMusic, 8495);
  for (int64_t v = 0; v < n; ++v)
    model.videos[v].author = authors[v], model.videos[v].music = music[v];
  return rows;
}

int64_t videos_open_to(const Model& model, const User& user) {
  return model.sizes.videos - (user.small_index >= 0 ? model.sizes.small_videos : 0);
}

/// Chooses distinct (user, video) pairs outside the block so that both margins come out as planned.
void plan_pairs(Model& model, const std::vector<double>& video_rows, ThreadPool& pool) {
  const int64_t users = model.sizes.users, videos = model.sizes.videos;
  // 13.38 % of all cells; the rest of a user's events are repeats.
  const double wanted = 0.1338 * static_cast<double>(users) * static_cast<double>(videos);
  std::vector<int64_t> degree(static_cast<size_t>(users));
  double low = 0.2, high = 1;
  for (int step = 0; step < 30; ++step) {
    const double share = (low + high) / 2;
    double sum = 0;
    for (int64_t u = 0; u < users; ++u) {
      const User& user = model.users[u];
      const double most = kLargestPairShare * static_cast<double>(videos_open_to(model, user));
      degree[u] = std::max<int64_t>(
          1, static_cast<int64_t>(std::min(most, share * static_cast<double>(user.events()))));
      sum += static_cast<double>(degree[u]);
    }
    (sum < wanted ? low : high) = share;
  }
  model.pair_begin.assign(static_cast<size_t>(users) + 1, 0);
  for (int64_t u = 0; u < users; ++u) model.pair_begin[u + 1] = model.pair_begin[u] + degree[u];
  model.pairs.resize(static_cast<size_t>(model.pair_begin.back()));
  const double pair_count = static_cast<double>(model.pair_begin.back());

  // Pairs of a video: as many as its rows, but saturating towards the number of users it is open to.
  std::vector<double> target(static_cast<size_t>(videos));
  const auto pairs_of = [&](int64_t v, double stretch) {
    const double most =
        0.97 * static_cast<double>(
                   users - (model.videos[v].small_index >= 0 ? model.sizes.small_users : 0));
    if (most < 1) return 0.0;
    return std::min(video_rows[v], most * (1 - exp(-stretch * video_rows[v] / most)));
  };
  low = 0.01, high = 20;
  for (int step = 0; step < 40; ++step) {
    const double stretch = (low + high) / 2;
    double sum = 0;
    for (int64_t v = 0; v < videos; ++v) sum += target[v] = pairs_of(v, stretch);
    (sum < pair_count ? low : high) = stretch;
  }
  for (int64_t v = 0; v < videos; ++v)
    model.videos[v].repeat_weight =
        (video_rows[v] - target[v] + 0.005 * video_rows[v]) / std::max(target[v], 0.5);

  // Weights for which drawing without replacement gives these margins: alternate between users (in groups of
  // like degree) and videos. A pair is taken with probability about 1 - exp(-a_user * w_video).
  struct Group {
    double count = 0, degree = 0, rate = 1;
    bool block = false;
  };
  std::vector<Group> groups;
  for (const bool block : {false, true}) {
    std::vector<int64_t> degrees;
    for (int64_t u = 0; u < users; ++u)
      if ((model.users[u].small_index >= 0) == block) degrees.push_back(degree[u]);
    std::sort(degrees.begin(), degrees.end());
    const int64_t n = static_cast<int64_t>(degrees.size()), parts = std::min<int64_t>(16, n);
    for (int64_t g = 0; g < parts; ++g) {
      Group group;
      group.block = block;
      for (int64_t i = g * n / parts; i < (g + 1) * n / parts; ++i)
        group.count += 1, group.degree += static_cast<double>(degrees[i]);
      group.degree /= group.count;
      group.rate = group.degree / pair_count;
      groups.push_back(group);
    }
  }
  std::vector<double> weight = target;
  std::vector<double> expected(static_cast<size_t>(videos));
  for (int round = 0; round < 24; ++round) {
    std::fill(expected.begin(), expected.end(), 0.0);
    for (Group& group : groups) {
      double sum = 0, slope = 0;
      std::vector<double> taken(static_cast<size_t>(videos));
      for (int64_t v = 0; v < videos; ++v) {
        if (group.block && model.videos[v].small_index >= 0) continue;
        const double left = exp(-group.rate * weight[v]);
        taken[v] = 1 - left;
        sum += taken[v];
        slope += weight[v] * left;
      }
      for (int64_t v = 0; v < videos; ++v) expected[v] += group.count * taken[v];
      group.rate =
          std::max(group.rate * 0.2, group.rate + (group.degree - sum) / std::max(slope, 1e-12));
    }
    for (int64_t v = 0; v < videos; ++v)
      if (expected[v] > 0) weight[v] *= std::clamp(target[v] / expected[v], 0.25, 4.0);
  }
  for (int64_t v = 0; v < videos; ++v) model.videos[v].log_weight = log(std::max(weight[v], 1e-12));

  // Keys -log(uniform) / weight; the smallest are taken. Taste moves the weight a little.
  const double tilt = kSelection / std::sqrt(kTasteShare);
  pool.parallel_for(users, [&](int64_t u, int) {
    std::vector<std::pair<double, int32_t>> keys;
    keys.reserve(static_cast<size_t>(videos));
    const User& user = model.users[u];
    const Draws draws(model.seed, Use::kPair, u);
    for (int64_t v = 0; v < videos; ++v) {
      const Video& video = model.videos[v];
      if (user.small_index >= 0 && video.small_index >= 0) continue;
      float taste = 0;
      for (int64_t k = 0; k < kTasteSize; ++k) taste += user.taste[k] * video.taste[k];
      keys.emplace_back(-log(draws.uniform(v)) * exp(-video.log_weight - tilt * taste),
                        static_cast<int32_t>(v));
    }
    const int64_t n = degree[u];
    std::nth_element(keys.begin(), keys.begin() + n - 1, keys.end());
    std::sort(keys.begin(), keys.begin() + n,
              [](const auto& a, const auto& b) { return a.second < b.second; });
    for (int64_t i = 0; i < n; ++i) model.pairs[model.pair_begin[u] + i] = keys[i].second;
  });

  // Every video is watched by somebody: one that was never drawn replaces a popular one.
  std::vector<int64_t> seen(static_cast<size_t>(videos));
  for (int32_t v : model.pairs) ++seen[v];
  for (int64_t v = 0; v < videos; ++v) {
    if (seen[v] > 0) continue;
    const Draws draws(model.seed, Use::kPair, users + v);
    for (int64_t attempt = 0; attempt < 1000; ++attempt) {
      const int64_t u = draws.below(attempt, users);
      if (model.users[u].small_index >= 0 && model.videos[v].small_index >= 0) continue;
      const auto begin = model.pairs.begin() + model.pair_begin[u],
                 end = model.pairs.begin() + model.pair_begin[u + 1];
      const auto popular =
          std::max_element(begin, end, [&](int32_t a, int32_t b) { return seen[a] < seen[b]; });
      if (seen[*popular] < 2) continue;
      --seen[*popular];
      *popular = static_cast<int32_t>(v);
      ++seen[v];
      break;
    }
  }
  const auto owner = std::find(model.pairs.begin(), model.pairs.end(), model.shortest_video);
  model.shortest_watcher = std::upper_bound(model.pair_begin.begin(), model.pair_begin.end(),
                                            owner - model.pairs.begin()) -
                           model.pair_begin.begin() - 1;
}

/// Cells of the block that are missing because a user has blocked the author.
void plan_missing(Model& model) {
  const int64_t users = model.sizes.small_users, videos = model.sizes.small_videos;
  model.missing.assign(static_cast<size_t>(users * videos), 0);
  const double root = static_cast<double>(model.sizes.users) / 7176;
  const int64_t most_of_user = std::clamp<int64_t>(scaled(32, root), 1, videos - 1);
  const int64_t most_of_video = std::clamp<int64_t>(scaled(96, root), 1, users - 1);
  const std::vector<int64_t> ranks = random_ranks(model.seed, Use::kHole, 0, users);
  std::vector<double> weights(static_cast<size_t>(users));
  for (int64_t i = 0; i < users; ++i) {
    const double p = (static_cast<double>(ranks[i]) + 0.5) / static_cast<double>(users);
    weights[i] = p * std::sqrt(p);
  }
  std::vector<int64_t> holes = shares(weights, model.sizes.small_missing);
  int64_t over = 0;
  for (int64_t& h : holes)
    over += std::max<int64_t>(0, h - most_of_user), h = std::min(h, most_of_user);
  for (int64_t i = 0; over > 0; i = (i + 1) % users)
    if (holes[i] < most_of_user) ++holes[i], --over;

  std::vector<double> blocked_weight(static_cast<size_t>(videos));
  for (int64_t j = 0; j < videos; ++j)
    blocked_weight[j] = exp(
        1.1 *
        Draws(model.seed, Use::kHole, 1 + model.videos[model.small_videos[j]].author).normal(0));
  std::vector<int64_t> of_video(static_cast<size_t>(videos));
  for (int64_t i = 0; i < users; ++i) {
    if (holes[i] == 0) continue;
    // One key an author, so that all its videos go together.
    const Draws draws(model.seed, Use::kHole, (int64_t{1} << 40) + i);
    std::vector<std::pair<double, int64_t>> keys;
    for (int64_t j = 0; j < videos; ++j)
      if (of_video[j] < most_of_video)
        keys.emplace_back(
            -log(draws.uniform(model.videos[model.small_videos[j]].author)) / blocked_weight[j], j);
    const int64_t n = std::min<int64_t>(holes[i], static_cast<int64_t>(keys.size()));
    KT_CHECK(n == holes[i], "no room for {} missing cells", holes[i]);
    std::nth_element(keys.begin(), keys.begin() + n - 1, keys.end());
    for (int64_t k = 0; k < n; ++k) {
      model.missing[i * videos + keys[k].second] = 1;
      ++of_video[keys[k].second];
    }
  }
  const int64_t shortest = model.videos[model.shortest_small_video].small_index;
  int64_t watcher = 0;
  while (watcher + 1 < users && model.missing[watcher * videos + shortest]) ++watcher;
  model.shortest_small_watcher = model.small_users[watcher];
}

}  // namespace

Model plan_model(const SynthOptions& options, ThreadPool& pool) {
  Model model;
  model.seed = options.seed;
  model.scale = options.scale;
  model.sizes = synth_sizes(options.scale);
  model.small_users = block_side(model.seed, Use::kSmallUsers, model.sizes.small_users,
                                 model.sizes.users, 14, 7162, 7176);
  model.small_videos = block_side(model.seed, Use::kSmallVideos, model.sizes.small_videos,
                                  model.sizes.videos, 103, 10595, 10728);
  plan_users(model);
  const std::vector<double> video_rows = plan_videos(model);
  plan_pairs(model, video_rows, pool);
  plan_missing(model);
  return model;
}

namespace {
constexpr int64_t kSample = 4096;
}

PlayCurve big_play_curve(const Model& model) {
  std::vector<PlayCurve::Score> scores;
  const Draws draws(model.seed, Use::kReference, 0);
  std::vector<int64_t> until(model.users.size());
  int64_t rows = 0;
  for (size_t u = 0; u < until.size(); ++u) until[u] = rows += model.users[u].rows;
  for (int64_t i = 0; i < kSample; ++i) {
    const int64_t row =
        static_cast<int64_t>((static_cast<double>(i) + 0.5) / kSample * static_cast<double>(rows));
    const int64_t u = std::upper_bound(until.begin(), until.end(), row) - until.begin();
    const int64_t pair =
        model.pair_begin[u] + draws.below(i, model.pair_begin[u + 1] - model.pair_begin[u]);
    scores.push_back(
        {model.score(u, model.pairs[pair]), model.users[u].spread_up, model.users[u].spread_down});
  }
  return PlayCurve(scores, kPlayBig);
}

PlayCurve small_play_curve(const Model& model) {
  std::vector<PlayCurve::Score> scores;
  const Draws draws(model.seed, Use::kReference, 1);
  for (int64_t i = 0; i < kSample; ++i) {
    const int64_t u = model.small_users[i * model.sizes.small_users / kSample];
    scores.push_back({model.score(u, model.small_videos[draws.below(i, model.sizes.small_videos)]),
                      model.users[u].spread_up, model.users[u].spread_down});
  }
  return PlayCurve(scores, kPlaySmall);
}

}  // namespace kt::synth
