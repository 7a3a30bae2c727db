#include "io/synth/synth_tables.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "io/synth/synth_text.h"

namespace kt::synth {

namespace {

int64_t of_videos(const Model& model, double count) {
  return static_cast<int64_t>(count * static_cast<double>(model.sizes.videos) / 10728 + 0.5);
}
int64_t of_users(const Model& model, double count) {
  return static_cast<int64_t>(count * static_cast<double>(model.sizes.users) / 7176 + 0.5);
}

/// Ranks of values, ascending; ties by index.
std::vector<int64_t> ranks_of(const std::vector<double>& values) {
  std::vector<std::pair<double, int64_t>> order;
  for (size_t i = 0; i < values.size(); ++i) order.push_back({values[i], static_cast<int64_t>(i)});
  std::sort(order.begin(), order.end());
  std::vector<int64_t> ranks(values.size());
  for (size_t r = 0; r < order.size(); ++r) ranks[order[r].second] = static_cast<int64_t>(r);
  return ranks;
}

double middle(int64_t rank, size_t n) {
  return (static_cast<double>(rank) + 0.5) / static_cast<double>(n);
}

// ---- users

struct Range {
  int64_t until;  ///< values up to and including this
  std::string_view name;
};
const std::vector<Range> kFollowRanges = {
    {0, "0"},           {10, "(0,10]"},     {50, "(10,50]"},    {100, "(50,100]"},
    {150, "(100,150]"}, {250, "(150,250]"}, {500, "(250,500]"}, {INT64_MAX, "500+"}};
const std::vector<Range> kFansRanges = {
    {0, "0"},          {9, "[1,10)"},     {99, "[10,100)"},       {999, "[100,1k)"},
    {4999, "[1k,5k)"}, {9999, "[5k,1w)"}, {INT64_MAX, "[1w,10w)"}};
const std::vector<Range> kFriendRanges = {{0, "0"},           {4, "[1,5)"},      {29, "[5,30)"},
                                          {59, "[30,60)"},    {119, "[60,120)"}, {249, "[120,250)"},
                                          {INT64_MAX, "250+"}};
const std::vector<Range> kRegisterRanges = {{30, "15-30"},      {60, "31-60"},    {90, "61-90"},
                                            {180, "91-180"},    {365, "181-365"}, {730, "366-730"},
                                            {INT64_MAX, "730+"}};

const Curve kFollow = {{0, 0},     {.002, 0}, {.05, 2},    {.1, 3},     {.25, 9},     {.5, 33},
                       {.75, 130}, {.9, 569}, {.95, 1407}, {.99, 1999}, {.999, 2006}, {1, 2100}};
const Curve kFans = {{0, 0},   {.3, 0},   {.301, 1},  {.4, 1},      {.5, 2},   {.75, 6},
                     {.9, 14}, {.95, 23}, {.99, 107}, {.999, 1323}, {1, 11401}};
const Curve kFriends = {{0, 0},    {.604, 0}, {.605, 1},   {.75, 1}, {.9, 5},
                        {.95, 11}, {.99, 49}, {.999, 941}, {1, 1425}};
const Curve kRegister = {{0, 8},     {.01, 22}, {.05, 50},  {.1, 70},    {.25, 132},   {.5, 225},
                         {.75, 324}, {.9, 598}, {.95, 955}, {.99, 1494}, {.999, 2006}, {1, 2245}};

std::string_view range_name(const std::vector<Range>& ranges, int64_t value) {
  for (const Range& range : ranges)
    if (value <= range.until) return range.name;
  return ranges.back().name;
}

/// Weights (k + shift)^-power of n categories.
std::vector<double> long_tail(int64_t n, double shift, double power) {
  std::vector<double> weights;
  for (int64_t k = 0; k < n; ++k)
    weights.push_back(exp(-power * log(static_cast<double>(k) + 1 + shift)));
  return weights;
}

int64_t write_users(const Model& model, const std::filesystem::path& folder, ThreadPool& pool) {
  const int64_t n = model.sizes.users;
  const size_t size = model.users.size();
  int64_t salt = 0;
  const auto classes = [&](const std::vector<double>& weights) {
    return random_classes(model.seed, Use::kUserFeature, salt++, n, weights);
  };
  const auto curve_values = [&](const Curve& curve) {
    std::vector<int64_t> values;
    for (int64_t rank : random_ranks(model.seed, Use::kUserFeature, salt++, n))
      values.push_back(static_cast<int64_t>(at(curve, middle(rank, size)) + 0.5));
    return values;
  };
  /// True for `count` users of scale 1.
  const auto flags = [&](double count) { return classes({7176 - count, count}); };

  constexpr std::string_view kDegrees[] = {"full_active", "high_active", "UNKNOWN",
                                           "middle_active"};
  const std::vector<int32_t> degree = classes({6092, 938, 118, 28});
  const std::vector<int32_t> low_active = flags(3), streamer = flags(49), author = flags(1217);
  const std::vector<int64_t> follow = curve_values(kFollow), fans = curve_values(kFans),
                             friends = curve_values(kFriends), registered = curve_values(kRegister);
  const std::vector<std::vector<double>> weights = {
      {4361, 2815},
      {3, 3082, 736, 949, 1096, 483, 825, 2},
      long_tail(30, 2, 2),
      long_tail(1076, 3, 0.75),
      {2055, 3257, 1195, 314, 78, 44, 20, 7, 1, 2, 1, 1},
      {7157, 2, 3, 2, 1, 2, 5, 1, 2, 1},
      {3120, 4040, 16},
      long_tail(47, 4, 1.6),
      long_tail(340, 2, 0.8),
      {18, 1108, 582, 1352, 1138, 1250, 1728},
      {812, 1, 3761, 1682, 920},
      {6665, 38, 473},
      {5055, 2121},
      {6433, 743},
      {6503, 673},
      {7044, 132},
      {7049, 127},
      {7073, 103},
  };
  std::vector<std::vector<int32_t>> features;
  for (size_t f = 0; f < weights.size(); ++f) {
    features.push_back(classes(weights[f]));
    if (f == 2 || f == 3 || f == 7 || f == 8) {
      // The indices of the long tails say nothing about how common they are.
      const std::vector<int64_t> names = random_ranks(model.seed, Use::kUserFeature, salt++,
                                                      static_cast<int64_t>(weights[f].size()));
      for (int32_t& value : features[f]) value = static_cast<int32_t>(names[value]);
    }
  }
  // Two features know something of the user: 9 of the bias, 10 of the first taste.
  for (const int64_t f : {9, 10}) {
    std::vector<double> leaning(size);
    for (int64_t u = 0; u < n; ++u) {
      const double noise = Draws(model.seed, Use::kUserFeature, (int64_t{1} << 40) + u).normal(f);
      leaning[u] = noise + (f == 9 ? 2 * model.users[u].bias
                                   : 0.6 * static_cast<double>(model.users[u].taste[0]));
    }
    std::vector<int32_t> sorted = features[f];
    std::sort(sorted.begin(), sorted.end());
    const std::vector<int64_t> ranks = ranks_of(leaning);
    for (int64_t u = 0; u < n; ++u) features[f][u] = sorted[ranks[u]];
  }
  const std::vector<int64_t> first_gap = random_ranks(model.seed, Use::kUserFeature, salt++, n);
  const std::vector<int64_t> second_gap = random_ranks(model.seed, Use::kUserFeature, salt++, n);
  const auto empty = [&](size_t f, int64_t u) {
    if (f == 4) return first_gap[u] < of_users(model, 201);
    if (f < 12) return false;
    return second_gap[u] < of_users(model, f == 12 ? 77 : f < 15 ? 75 : 74);
  };

  std::string header =
      "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_"
      "num,"
      "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_"
      "range,"
      "register_days,register_days_range";
  for (size_t f = 0; f < weights.size(); ++f) {
    put(header, ",onehot_feat");
    put(header, static_cast<int64_t>(f));
  }
  return write_csv(folder / "user_features.csv", header, 1, pool, [&](int64_t, std::string& text) {
    for (int64_t u = 0; u < n; ++u) {
      put(text, u);
      put(text, ',');
      put(text, kDegrees[degree[u]]);
      for (const int32_t flag : {low_active[u], streamer[u], author[u]}) {
        put(text, ',');
        put(text, flag);
      }
      const auto counted = [&](int64_t value, const std::vector<Range>& ranges) {
        put(text, ',');
        put(text, value);
        put(text, ',');
        put_field(text, range_name(ranges, value));
      };
      counted(follow[u], kFollowRanges);
      counted(fans[u], kFansRanges);
      counted(friends[u], kFriendRanges);
      counted(registered[u], kRegisterRanges);
      for (size_t f = 0; f < features.size(); ++f) {
        put(text, ',');
        if (!empty(f, u)) put(text, features[f][u]);
      }
      put(text, '\n');
    }
  });
}

int64_t write_friends(const Model& model, const std::filesystem::path& folder, ThreadPool& pool) {
  const int64_t rows = model.sizes.social_rows, users = model.sizes.users;
  const std::vector<int64_t> order = random_ranks(model.seed, Use::kSocial, 0, users);
  const std::vector<int32_t> counts =
      random_classes(model.seed, Use::kSocial, 1, rows, {336, 94, 29, 9, 4});
  return write_csv(folder / "social_network.csv", "user_id,friend_list", 1, pool,
                   [&](int64_t, std::string& text) {
                     for (int64_t r = 0; r < rows; ++r) {
                       const Draws draws(model.seed, Use::kSocial, 2 + r);
                       const int64_t wanted = std::min<int64_t>(counts[r] + 1, users - 1);
                       std::vector<int64_t> friends;
                       for (int64_t counter = 0; static_cast<int64_t>(friends.size()) < wanted;
                            ++counter) {
                         const int64_t other = draws.below(counter, users);
                         if (other != order[r] &&
                             std::find(friends.begin(), friends.end(), other) == friends.end())
                           friends.push_back(other);
                       }
                       put(text, order[r]);
                       put(text, ',');
                       std::string list = "[";
                       for (size_t i = 0; i < friends.size(); ++i) {
                         if (i > 0) put(list, ", ");
                         put(list, friends[i]);
                       }
                       put(list, ']');
                       put_field(text, list);
                       put(text, '\n');
                     }
                   });
}

// ---- videos

int64_t write_categories(const Model& model, const std::filesystem::path& folder,
                         ThreadPool& pool) {
  return write_csv(folder / "item_categories.csv", "video_id,feat", 1, pool,
                   [&](int64_t, std::string& text) {
                     for (int64_t v = 0; v < model.sizes.videos; ++v) {
                       const Video& video = model.videos[v];
                       std::string list = "[";
                       for (int32_t i = 0; i < video.tag_count; ++i) {
                         if (i > 0) put(list, ", ");
                         put(list, video.tags[i]);
                       }
                       put(list, ']');
                       put(text, v);
                       put(text, ',');
                       put_field(text, list);
                       put(text, '\n');
                     }
                   });
}

constexpr int64_t kTopics = 38;
constexpr std::string_view kTopicNames[kTopics] = {
    "Dance",    "Music",  "Reading", "Horses",    "Clothes", "Stars",   "Sport",    "Looks",
    "Comedy",   "Games",  "Daily",   "Cooking",   "Farming", "Science", "Crafts",   "Travel",
    "Films",    "Cars",   "Feeling", "Comics",    "History", "Money",   "Homes",    "Fishing",
    "Children", "Photos", "Phones",  "News",      "Weather", "Fitness", "Services", "Pets",
    "Other",    "Trains", "Tea",     "Wild life", "Health",  "Schools"};
constexpr std::string_view kWords[] = {
    "sunny",     "quiet",  "晴天",       "river", "old street",   "晚饭", "a small cat", "小猫",
    "first try", "again",  "周末",       "rainy", "kitchen",      "大树", "slow",        "loud",
    "朋友",      "bright", "new shoes",  "雪山",  "market",       "早晨", "garden",      "☕",
    "🙂",      "训练",   "by the sea", "海边",  "step by step", "练习"};
constexpr std::string_view kHashWords[] = {"daily", "fun",  "手工", "trip", "美味", "learn",
                                           "music", "日常", "cats", "运动", "home", "风景",
                                           "song",  "新手", "tips", "2020"};

/// The category of a video on three levels, counted from 0; -1 where it has none.
struct Levels {
  int64_t first = -1, second = -1, third = -1;
};

std::vector<Levels> caption_levels(const Model& model) {
  constexpr int64_t kSecond = 137, kThird = 219;
  const int64_t n = model.sizes.videos;
  const std::vector<int64_t> ranks = random_ranks(model.seed, Use::kCaption, 0, n);
  const int64_t no_first = of_videos(model, 40), no_second = of_videos(model, 3583),
                no_third = of_videos(model, 6832);
  std::vector<Levels> levels(static_cast<size_t>(n));
  for (int64_t v = 0; v < n; ++v) {
    Levels& l = levels[v];
    const Draws draws(model.seed, Use::kCaption, v + 1);
    if (ranks[v] < no_first) continue;
    const double p = draws.uniform(0);
    l.first =
        draws.uniform(1) < 0.67 ? model.videos[v].tags[0] : static_cast<int64_t>(p * p * kTopics);
    if (ranks[v] < no_second) continue;
    // Level 2 category s belongs to s mod 38, level 3 category t to t mod 137.
    l.second = l.first + kTopics * draws.below(2, (kSecond - 1 - l.first) / kTopics + 1);
    if (ranks[v] < no_third) continue;
    l.third = l.second + kSecond * draws.below(3, (kThird - 1 - l.second) / kSecond + 1);
    // Where there are videos enough, every category has one.
    const int64_t place = ranks[v] - no_third;
    if (place < kThird && n - no_third > 8 * kThird) {
      l.third = place;
      l.second = place % kSecond;
      l.first = l.second % kTopics;
    }
  }
  return levels;
}

int64_t write_captions(const Model& model, const std::filesystem::path& folder, ThreadPool& pool) {
  constexpr int64_t kBlock = 256;
  const int64_t n = model.sizes.videos;
  const std::vector<Levels> levels = caption_levels(model);
  const std::vector<int64_t> cover = random_ranks(model.seed, Use::kCaption, -1, n);
  const std::vector<int64_t> caption = random_ranks(model.seed, Use::kCaption, -2, n);
  // The records with a bare carriage return in an unquoted field, at one place in the file at every scale.
  std::vector<int64_t> traps;
  for (const double record : {1378.0, 1613.0, 5910.0, 6331.0})
    traps.push_back(std::min(n - 1, of_videos(model, record)));
  return write_csv(folder / "kuairec_caption_category.csv",
                   "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_"
                   "level_category_name,"
                   "second_level_category_id,second_level_category_name,third_level_category_id,"
                   "third_level_category_name",
                   (n + kBlock - 1) / kBlock, pool, [&](int64_t block, std::string& text) {
                     for (int64_t v = block * kBlock; v < std::min(n, (block + 1) * kBlock); ++v) {
                       const Draws draws(model.seed, Use::kCaption, n + 1 + v);
                       int64_t counter = 0;
                       const auto pick = [&](const auto& list) {
                         return list[draws.below(counter++, static_cast<int64_t>(std::size(list)))];
                       };
                       put(text, v);
                       put(text, ',');
                       if (cover[v] < of_videos(model, 6694)) {
                         put(text, "UNKNOWN");
                       } else {
                         std::string words(pick(kWords));
                         words += draws.uniform(counter++) < 0.1 ? ", " : " ";
                         words += pick(kWords);
                         put_field(text, words);
                       }
                       put(text, ',');
                       const bool trap = std::find(traps.begin(), traps.end(), v) != traps.end();
                       const bool silent = caption[v] < of_videos(model, 1355) && !trap;
                       std::vector<std::string_view> tags;
                       if (caption[v] >= of_videos(model, 4611) && !trap)
                         for (int64_t k = 1 + draws.below(counter++, 5); k > 0; --k)
                           if (const auto tag = pick(kHashWords);
                               std::find(tags.begin(), tags.end(), tag) == tags.end())
                             tags.push_back(tag);
                       std::string words;
                       if (!silent) {
                         const int64_t length = 2 + draws.below(counter++, 8);
                         for (int64_t k = 0; k < length; ++k) {
                           const double joint = draws.uniform(counter++);
                           if (k > 0) words += joint < 0.08 && !trap ? ", " : " ";
                           const auto word = pick(kWords);
                           const bool quoted = joint > 0.985 && !trap;
                           if (quoted) words += '"';
                           words += word;
                           if (quoted) words += '"';
                           if (trap && k == 0) words += '\r';
                         }
                         for (const auto tag : tags) (words += " #") += tag;
                         if (!tags.empty()) words += ' ';
                       }
                       put_field(text, words);
                       put(text, ',');
                       std::sort(tags.begin(), tags.end());
                       std::string list = "[";
                       for (size_t k = 0; k < tags.size(); ++k) {
                         if (k > 0) list += ',';
                         list += tags[k];
                       }
                       put_field(text, list + "]");
                       const Levels& l = levels[v];
                       // Ids as in the original: level 1 runs from 1 and leaves out 30.
                       const auto category = [&](int64_t index, int64_t id,
                                                 std::string_view suffix) {
                         put(text, ',');
                         if (index < 0) {
                           put(text, "-124,UNKNOWN");
                           return;
                         }
                         put(text, id);
                         put(text, ',');
                         put(text, kTopicNames[l.first]);
                         if (suffix.empty()) return;
                         put(text, suffix);
                         put(text, index + 1);
                       };
                       category(l.first, l.first + 1 + (l.first >= 29), "");
                       category(l.second, 100 + 5 * l.second, " ");
                       category(l.third, 1000 + 9 * l.third, " / ");
                       put(text, '\n');
                     }
                   });
}

// ---- daily features

constexpr std::string_view kDailyHeader =
    "video_id,date,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,video_"
    "width,video_height,"
    "music_id,video_tag_id,video_tag_name,show_cnt,show_user_num,play_cnt,play_user_num,play_"
    "duration,"
    "complete_play_cnt,complete_play_user_num,valid_play_cnt,valid_play_user_num,long_time_play_"
    "cnt,"
    "long_time_play_user_num,short_time_play_cnt,short_time_play_user_num,play_progress,comment_"
    "stay_duration,"
    "like_cnt,like_user_num,click_like_cnt,double_click_cnt,cancel_like_cnt,cancel_like_user_num,"
    "comment_cnt,"
    "comment_user_num,direct_comment_cnt,reply_comment_cnt,delete_comment_cnt,delete_comment_user_"
    "num,"
    "comment_like_cnt,comment_like_user_num,follow_cnt,follow_user_num,cancel_follow_cnt,cancel_"
    "follow_user_num,"
    "share_cnt,share_user_num,download_cnt,download_user_num,report_cnt,report_user_num,reduce_"
    "similar_cnt,"
    "reduce_similar_user_num,collect_cnt,collect_user_num,cancel_collect_cnt,cancel_collect_user_"
    "num";

const Curve kShow = {{0, 1},       {.05, 3},      {.25, 66},      {.5, 1365},       {.75, 22300},
                     {.9, 165000}, {.97, 800000}, {.99, 2200000}, {.999, 12000000}, {1, 42200000}};

const int32_t kFirstDay = day_of(2020, 7, 5), kLastDay = day_of(2020, 9, 5);
const int32_t kFirstUpload = day_of(2019, 5, 18);

double share_of(double score) { return 1 / (1 + exp(-score)); }

/// Videos, in random order, whose rows add up to `rows` (or as near as they go).
std::vector<char> videos_with_rows(const Model& model, const std::vector<int64_t>& rows_of,
                                   int64_t salt, int64_t rows) {
  const int64_t n = model.sizes.videos;
  const std::vector<int64_t> order = random_ranks(model.seed, Use::kDaily, salt, n);
  std::vector<char> chosen(static_cast<size_t>(n), 0);
  for (int64_t v : order)
    if (rows_of[v] <= rows) chosen[v] = 1, rows -= rows_of[v];
  return chosen;
}

class DailyTable {
 public:
  explicit DailyTable(const Model& model) : model_(model) {
    const int64_t n = model.sizes.videos, keys = model.sizes.daily_keys;
    constexpr int64_t kDays = 63;
    const std::vector<int64_t> ranks = random_ranks(model.seed, Use::kDaily, 0, n);
    std::vector<double> weights(static_cast<size_t>(n));
    for (int64_t v = 0; v < n; ++v) weights[v] = exp(2.6 * log(middle(ranks[v], weights.size())));
    std::vector<int64_t> days = shares(weights, keys - n);
    int64_t over = 0;
    for (int64_t& d : days) {
      over += std::max<int64_t>(0, d + 1 - kDays);
      d = std::min(d + 1, kDays);
    }
    for (int64_t v = 0; over > 0; v = (v + 1) % n)
      if (days[v] < kDays) ++days[v], --over;
    first_key_.assign(static_cast<size_t>(n) + 1, 0);
    for (int64_t v = 0; v < n; ++v) first_key_[v + 1] = first_key_[v] + days[v];

    const int64_t more = model.sizes.daily_rows - keys;
    shared_ = std::clamp(static_cast<int64_t>(76925.0 / 194155 * static_cast<double>(keys) + 0.5),
                         std::min<int64_t>(1, more), more);
    further_ = more - shared_;
    std::vector<int64_t> rows(static_cast<size_t>(n));
    for (int64_t v = 0; v < n; ++v)
      for (int64_t key = first_key_[v]; key < first_key_[v + 1]; ++key) rows[v] += rows_of_key(key);
    const auto of_rows = [&](double count) {
      return static_cast<int64_t>(count / 343341 * static_cast<double>(model.sizes.daily_rows) +
                                  0.5);
    };
    advertisement_ = videos_with_rows(model, rows, 1, of_rows(1153));
    no_duration_ = videos_with_rows(model, rows, 2, of_rows(10598));
    no_tag_ = videos_with_rows(model, rows, 3, of_rows(32434));
    no_collect_ = videos_with_rows(model, rows, 4, of_rows(69683));

    std::vector<double> popularity;
    for (const Video& video : model.videos) popularity.push_back(video.log_weight);
    popularity_rank_ = ranks_of(popularity);
  }

  void put_rows(int64_t v, std::string& text) const;

 private:
  int64_t rows_of_key(int64_t key) const {
    const int64_t keys = model_.sizes.daily_keys;
    const int64_t index = key * shared_ / keys;
    if ((key + 1) * shared_ / keys == index) return 1;
    return 2 + (index + 1) * further_ / shared_ - index * further_ / shared_;
  }

  const Model& model_;
  std::vector<int64_t> first_key_;  ///< [videos + 1]
  int64_t shared_ = 0;              ///< keys with several rows
  int64_t further_ = 0;             ///< rows beyond the second of those
  std::vector<char> advertisement_, no_duration_, no_tag_, no_collect_;
  std::vector<int64_t> popularity_rank_;
};

void DailyTable::put_rows(int64_t v, std::string& text) const {
  constexpr std::string_view kUploadTypes[] = {"ShortImport", "ShortCamera", "LongImport", "Kmovie",
                                               "PictureSet"};
  const Video& video = model_.videos[v];
  const Draws of_video(model_.seed, Use::kDaily, 16 + v);
  const int32_t days = static_cast<int32_t>(first_key_[v + 1] - first_key_[v]);
  const int32_t begin =
      kFirstDay + static_cast<int32_t>(of_video.below(0, kLastDay - kFirstDay + 2 - days));
  // What is new was uploaded on its first day; the rest over the year before, the recent weeks most.
  const double age = -30 * log(of_video.uniform(1));
  const int32_t upload = v == 0 ? kFirstUpload
                         : begin > kFirstDay && of_video.uniform(2) < 0.8
                             ? begin
                             : std::max(kFirstUpload, begin - static_cast<int32_t>(age));
  const double p = of_video.uniform(3);
  const std::string_view upload_type = kUploadTypes[p < .55   ? 0
                                                    : p < .8  ? 1
                                                    : p < .93 ? 2
                                                    : p < .98 ? 3
                                                              : 4];
  const double q = of_video.uniform(4);
  const std::string_view visible = q < .985 ? "public" : q < .995 ? "private" : "friends";
  const bool wide = of_video.uniform(5) < 0.12;

  const double appeal = video.appeal * 10;  // about one standard deviation a unit
  const double length = log(static_cast<double>(video.duration_ms) / 9600);
  const double rank = middle(popularity_rank_[v], popularity_rank_.size());
  const double popularity = (log(rank) - log(1 - rank)) / 1.702;
  // Noise of the video, one number a rate.
  const auto noise = [&](int64_t k) { return of_video.normal(16 + k); };
  const double shown_to_played = share_of(0.5 - 0.5 * appeal + 0.4 * length + 0.4 * noise(0));
  const double completed = share_of(-0.2 + 0.4 * appeal - 0.3 * length + 0.6 * noise(1));
  const double valid = share_of(0.2 + 0.3 * appeal + 0.5 * noise(2));
  const double longer = share_of(-0.4 + 0.4 * appeal + 0.3 * length + 0.5 * noise(3));
  const double quick = share_of(-1.2 - 0.4 * appeal + 0.4 * noise(4));
  const double play_s = 9.0 * exp(0.12 * appeal + 0.25 * noise(5));
  const double progress = share_of(0.9 + 0.3 * appeal - 0.8 * length + 0.4 * noise(6));
  const double liked = 0.02 * exp(0.05 * appeal + 0.9 * noise(7));

  for (int32_t k = 0; k < days; ++k) {
    const int64_t key = first_key_[v] + k;
    const int64_t rows = rows_of_key(key);
    for (int64_t row = 0; row < rows; ++row) {
      const Draws draws(model_.seed, Use::kDailyRow, key * 4 + row);
      int64_t counter = 0;
      const auto field = [&](auto value) {
        put(text, ',');
        put(text, value);
      };
      const auto rounded = [&](double expected) {
        return static_cast<int64_t>(expected + draws.uniform(counter++));
      };
      // A number of events and of the users behind them, a little fewer.
      const auto count = [&](double expected, double users) {
        const int64_t n = rounded(expected);
        field(n);
        field(std::min(n, rounded(static_cast<double>(n) * users)));
        return n;
      };
      put(text, v);
      field(yyyymmdd(begin + k));
      field(video.author);
      field(std::string_view(advertisement_[v] ? "AD" : "NORMAL"));
      put(text, ',');
      put_day(text, upload);
      field(upload_type);
      field(visible);
      put(text, ',');
      if (!no_duration_[v]) put(text, static_cast<double>(video.duration_ms));
      field(wide ? 1280 : 720);
      field(wide ? 720 : 1280);
      field(int64_t{1000000000} + video.music * int64_t{262147});
      // Rows that share a key differ in their tag.
      const int64_t tag = (video.tags[0] * 29 + row * 17 + v % 7) % 900;
      field(tag);
      put(text, ',');
      if (!no_tag_[v]) {
        put(text, kTopicNames[video.tags[0]]);
        put(text, ' ');
        put(text, tag);
      }
      const double x =
          0.8 * popularity + 0.47 * noise(8) + 0.37 * draws.normal(100) - 0.4 * (k / 63.0 - 0.25);
      const double show = at_log(kShow, share_of(1.702 * x)) - 1;
      const int64_t shown = count(show, 0.78);
      const int64_t played = std::min(shown, rounded(static_cast<double>(shown) * shown_to_played));
      const double plays = static_cast<double>(played);
      field(played);
      field(std::min(played, rounded(plays * 0.75)));
      field(rounded(plays * 1000 * play_s));
      count(plays * completed, 0.86);
      count(plays * valid, 0.87);
      count(plays * longer, 0.87);
      count(plays * quick, 0.8);
      put(text, ',');
      put(text, static_cast<double>(rounded(
                    std::min(progress * (0.95 + 0.1 * draws.uniform(counter++)), 1.0) * 1e5)) /
                    1e5);
      field(rounded(plays * 600 * exp(0.5 * noise(9))));
      const int64_t likes = count(plays * liked, 0.99);
      const int64_t clicked = rounded(static_cast<double>(likes) * 0.55);
      field(std::min(likes, clicked));
      field(likes - std::min(likes, clicked));
      const double like = static_cast<double>(likes);
      count(like * 0.12, 0.97);
      const int64_t comments = count(plays * 0.004 * exp(0.9 * noise(10)), 0.85);
      const int64_t direct = std::min(comments, rounded(static_cast<double>(comments) * 0.7));
      field(direct);
      field(comments - direct);
      count(static_cast<double>(comments) * 0.05, 0.9);
      count(static_cast<double>(comments) * 1.5, 0.8);
      count(plays * 0.003 * exp(0.9 * noise(11)), 0.995);
      count(plays * 0.0004, 0.99);
      count(plays * 0.002 * exp(0.9 * noise(12)), 0.85);
      count(plays * 0.0015 * exp(0.9 * noise(13)), 0.9);
      count(plays * 0.00005, 0.95);
      count(plays * 0.0003 * exp(-0.3 * appeal), 0.98);
      if (no_collect_[v]) {
        put(text, ",,,,");
      } else {
        for (const double rate : {0.002, 0.0002}) {
          const int64_t n = rounded(plays * rate);
          field(static_cast<double>(n));
          field(static_cast<double>(std::min(n, rounded(static_cast<double>(n) * 0.98))));
        }
      }
      put(text, '\n');
    }
  }
}

int64_t write_daily(const Model& model, const std::filesystem::path& folder, ThreadPool& pool) {
  constexpr int64_t kBlock = 32;
  const DailyTable table(model);
  const int64_t n = model.sizes.videos;
  return write_csv(folder / "item_daily_features.csv", kDailyHeader, (n + kBlock - 1) / kBlock,
                   pool, [&](int64_t block, std::string& text) {
                     for (int64_t v = block * kBlock; v < std::min(n, (block + 1) * kBlock); ++v)
                       table.put_rows(v, text);
                   });
}

}  // namespace

int64_t write_side_tables(const Model& model, const std::filesystem::path& folder,
                          ThreadPool& pool) {
  return write_users(model, folder, pool) + write_friends(model, folder, pool) +
         write_categories(model, folder, pool) + write_captions(model, folder, pool) +
         write_daily(model, folder, pool);
}

}  // namespace kt::synth
