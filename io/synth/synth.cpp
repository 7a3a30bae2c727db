#include "io/synth/synth.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "io/files/files.h"
#include "io/synth/synth_model.h"
#include "io/synth/synth_tables.h"
#include "io/synth/synth_text.h"
#include "launch/base/errors.h"
#include "launch/base/progress.h"
#include "launch/process/cpus.h"

namespace kt {

using namespace synth;

SynthSizes synth_sizes(double scale) {
  if (!(scale > 0 && scale <= 10))
    user_error(
        "--scale: got {}, expected a number above 0 and at most 10; 1 is the size of KuaiRec",
        scale);
  const auto rows = [&](double count) { return static_cast<int64_t>(count * scale + 0.5); };
  const auto side = [&](double count) {
    return std::max<int64_t>(20, static_cast<int64_t>(count * std::sqrt(scale) + 0.5));
  };
  SynthSizes sizes{};
  sizes.users = side(7176);
  sizes.small_users = side(1411);
  sizes.small_videos = side(3327);
  // At the smallest scales the block must leave videos to train on.
  sizes.videos = std::max(side(10728), 2 * sizes.small_videos);
  sizes.small_missing = rows(17827);
  sizes.small_without_time =
      static_cast<int64_t>(181992.0 / 4676570 * static_cast<double>(sizes.small_rows()) + 0.5);
  sizes.big_rows = std::max(rows(12530806), 2 * (sizes.users + sizes.videos));
  sizes.big_duplicates = rows(965819);
  sizes.big_event_duplicates = rows(968004 - 965819);
  sizes.daily_rows = std::max(rows(343341), sizes.videos);
  sizes.daily_keys = std::clamp(rows(194155), sizes.videos, sizes.daily_rows);
  sizes.social_rows = std::clamp<int64_t>(rows(472), 1, sizes.users);
  return sizes;
}

namespace {

constexpr std::string_view kMatrixHeader =
    "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio";

struct Event {
  int64_t timestamp_ms;
  int32_t video, play_ms, duration_ms;
  int32_t date;  ///< day, see day_of
};

/// A run of days rows come from, local time.
struct Window {
  int32_t begin, days;
};
const Window kWindows[] = {
    {day_of(2020, 7, 5), 8}, {day_of(2020, 8, 1), 10}, {day_of(2020, 8, 27), 10}};
constexpr int64_t kMsPerDay = 86400'000, kUtcOffsetMs = 8 * 3600'000;
struct Span {
  int64_t first, last;
};
constexpr Span kBigSpan{1592872451373, 1599694332427}, kSmallSpan{1593800606060, 1599321443683};

/// Hour of the day by share: quiet nights, busy evenings.
const Curve kHour = {{0, 0},    {.06, 2},  {.09, 6},  {.2, 9}, {.36, 12.5},
                     {.55, 17}, {.72, 20}, {.92, 23}, {1, 24}};

/// When an event happens; one in 700 outside the windows.
void place_in_time(Event& event, const Draws& draws, int64_t counter, const Span& span) {
  int64_t day = draws.below(counter, 28);
  const Window* window = kWindows;
  while (day >= window->days) day -= (window++)->days;
  event.date = window->begin + static_cast<int32_t>(day);
  if (draws.uniform(counter + 1) < 1.0 / 700) {
    event.timestamp_ms = span.first + draws.below(counter + 2, span.last - span.first);
    return;
  }
  const int64_t of_day = static_cast<int64_t>(at(kHour, draws.uniform(counter + 2)) * 3600'000.0);
  event.timestamp_ms =
      std::clamp(event.date * kMsPerDay + std::min(of_day, kMsPerDay - 1) - kUtcOffsetMs,
                 span.first, span.last);
  // Around midnight the day of record is not always the day of the clock.
  if (of_day < 40'000 && draws.uniform(counter + 3) < 0.5 && day > 0) --event.date;
}

int32_t shown_duration(const Video& video, double uniform) {
  if (uniform < 0.80) return video.duration_ms;
  return uniform < 0.93 ? video.second_duration_ms : video.third_duration_ms;
}

enum class DateForm { kInteger, kFloat };
enum class TimeColumns { kFilled, kEmpty };

void put_row(std::string& text, int64_t user, const Event& event, DateForm form,
             TimeColumns columns) {
  put(text, user);
  put(text, ',');
  put(text, event.video);
  put(text, ',');
  put(text, event.play_ms);
  put(text, ',');
  put(text, event.duration_ms);
  put(text, ',');
  if (columns == TimeColumns::kFilled) {
    put_time(text, event.timestamp_ms);
    put(text, ',');
    put(text, yyyymmdd(event.date));
    if (form == DateForm::kFloat) put(text, ".0");
    put(text, ',');
    put_seconds(text, event.timestamp_ms / 1000, static_cast<int32_t>(event.timestamp_ms % 1000),
                true);
    put(text, ',');
  } else {
    put(text, ",,,");
  }
  put(text, static_cast<double>(event.play_ms) / event.duration_ms);
  put(text, '\n');
}

/// How often a user watches each of its pairs; adds up to the user's events.
std::vector<int64_t> repeats(const Model& model, int64_t u) {
  const User& user = model.users[u];
  const int64_t begin = model.pair_begin[u], n = model.pair_begin[u + 1] - begin;
  std::vector<int64_t> times(static_cast<size_t>(n), 1);
  int64_t more = user.events() - n;
  if (more <= 0) return times;
  const Draws draws(model.seed, Use::kRepeat, u);
  std::vector<double> until(static_cast<size_t>(n));
  double sum = 0;
  int64_t favourite = 0;
  double most = 0;
  for (int64_t i = 0; i < n; ++i) {
    // A few pairs take most of the repeats.
    const double heavy = std::min(1 / draws.uniform(i), 300.0);
    const double weight = model.videos[model.pairs[begin + i]].repeat_weight * heavy;
    if (weight > most) most = weight, favourite = i;
    until[i] = sum += weight;
  }
  // The most active user has the pair with the most repeats.
  const bool top = u == model.most_active;
  if (top) {
    const int64_t share =
        std::min(more, static_cast<int64_t>(2223 * static_cast<double>(model.sizes.users) / 7176));
    times[favourite] += share;
    more -= share;
  }
  for (int64_t k = 0; k < more; ++k) {
    const double p = draws.uniform(n + k) * sum;
    const auto i =
        std::min<int64_t>(std::upper_bound(until.begin(), until.end(), p) - until.begin(), n - 1);
    if (!(top && i == favourite))
      ++times[i];
    else
      ++times[static_cast<int64_t>(draws.below(2 * n + k, n))];
  }
  return times;
}

struct Limits {
  double ratio, play_ms;
};
constexpr Limits kBigLimits{573.457, 999639}, kSmallLimits{571.521, 1e9};

int32_t rounded_play(double play, int32_t duration_ms, const Limits& limits) {
  return static_cast<int32_t>(std::min({play + 0.5, limits.ratio * duration_ms, limits.play_ms}));
}

void big_rows_of(const Model& model, const PlayCurve& curve, int64_t u, std::string& text) {
  const User& user = model.users[u];
  const std::vector<int64_t> times = repeats(model, u);
  std::vector<Event> events;
  events.reserve(static_cast<size_t>(user.events()));
  const Draws draws(model.seed, Use::kEvent, u);
  for (size_t i = 0; i < times.size(); ++i) {
    const int32_t v = model.pairs[model.pair_begin[u] + static_cast<int64_t>(i)];
    for (int64_t k = 0; k < times[i]; ++k) {
      const int64_t counter = static_cast<int64_t>(events.size()) * 8;
      Event event{};
      event.video = v;
      event.duration_ms = shown_duration(model.videos[v], draws.uniform(counter));
      event.play_ms = rounded_play(model.play(curve, u, v, draws.uniform(counter + 1)),
                                   event.duration_ms, kBigLimits);
      if (k == 0 && v == model.shortest_video && u == model.shortest_watcher)
        event.play_ms = rounded_play(1e9, event.duration_ms, kBigLimits);
      place_in_time(event, draws, counter + 2, kBigSpan);
      events.push_back(event);
    }
  }
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return a.timestamp_ms != b.timestamp_ms ? a.timestamp_ms < b.timestamp_ms : a.video < b.video;
  });
  if (u == 0) events.front().timestamp_ms = kBigSpan.first;
  if (u + 1 == model.sizes.users) events.back().timestamp_ms = kBigSpan.last;
  // No two events of a user at one instant, so that the planted duplicates are the only ones.
  for (size_t i = 1; i < events.size(); ++i)
    events[i].timestamp_ms = std::max(events[i].timestamp_ms, events[i - 1].timestamp_ms + 1);

  // Half of the duplicates follow their original, the others come anywhere after it among the user's rows.
  struct Place {
    int64_t order, event;
    int32_t other_date;
    bool operator<(const Place& b) const { return order < b.order; }
  };
  const int64_t n = static_cast<int64_t>(events.size());
  std::vector<Place> places;
  for (int64_t i = 0; i < n; ++i) places.push_back({2 * i, i, 0});
  const Draws copy(model.seed, Use::kDuplicate, u);
  const auto after = [&](int64_t i, int64_t counter) {
    return copy.uniform(counter) < 0.5 ? 2 * i + 1
                                       : 2 * i + 1 + copy.below(counter + 1, 2 * (n - i));
  };
  for (int64_t k = 0; k < user.duplicates; ++k) {
    const int64_t i = copy.below(3 * k, n);
    places.push_back({after(i, 3 * k + 1), i, 0});
  }
  const int64_t first = copy.below(-1, n);
  for (int64_t k = 0; k < user.event_duplicates; ++k) {
    const int64_t i = (first + k) % n;
    places.push_back({after(i, -3 - 2 * k), i, 1});
  }
  std::stable_sort(places.begin(), places.end());
  for (const Place& place : places) {
    Event event = events[place.event];
    event.date += place.other_date;
    put_row(text, u, event, DateForm::kInteger, TimeColumns::kFilled);
  }
  advance_progress(std::ssize(places));
}

void small_rows_of(const Model& model, const PlayCurve& curve, int64_t i, int64_t without_time,
                   std::string& text) {
  const int64_t u = model.small_users[i], columns = model.sizes.small_videos;
  const Draws draws(model.seed, Use::kCell, u);
  std::vector<Event> events;
  for (int64_t j = 0; j < columns; ++j) {
    if (model.missing[i * columns + j]) continue;
    const int64_t counter = j * 8;
    Event event{};
    event.video = model.small_videos[j];
    event.duration_ms = shown_duration(model.videos[event.video], draws.uniform(counter));
    event.play_ms = rounded_play(model.play(curve, u, event.video, draws.uniform(counter + 1)),
                                 event.duration_ms, kSmallLimits);
    if (u == model.shortest_small_watcher && event.video == model.shortest_small_video)
      event.play_ms = rounded_play(1e9, event.duration_ms, kSmallLimits);
    place_in_time(event, draws, counter + 2, kSmallSpan);
    events.push_back(event);
  }
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return a.timestamp_ms != b.timestamp_ms ? a.timestamp_ms < b.timestamp_ms : a.video < b.video;
  });
  if (i == 0) events.front().timestamp_ms = kSmallSpan.first;
  if (i + 1 == model.sizes.small_users) events.back().timestamp_ms = kSmallSpan.last;
  // Exposures that were forced at the second stage have no time: a random choice of the user's rows.
  std::vector<std::pair<uint64_t, size_t>> order;
  const Draws forced(model.seed, Use::kCell, (int64_t{1} << 40) + u);
  for (size_t k = 0; k < events.size(); ++k)
    order.push_back({forced.bits(static_cast<int64_t>(k)), k});
  std::nth_element(order.begin(), order.begin() + without_time, order.end());
  std::vector<char> empty(events.size(), 0);
  for (int64_t k = 0; k < without_time; ++k) empty[order[k].second] = 1;
  for (size_t k = 0; k < events.size(); ++k)
    put_row(text, u, events[k], DateForm::kFloat,
            empty[k] ? TimeColumns::kEmpty : TimeColumns::kFilled);
  advance_progress(std::ssize(events));
}

int64_t write_big(const Model& model, const PlayCurve& curve, const std::filesystem::path& folder,
                  ThreadPool& pool) {
  constexpr int64_t kUsersPerBlock = 4;
  const int64_t n = model.sizes.users;
  return write_csv(folder / "big_matrix.csv", kMatrixHeader,
                   (n + kUsersPerBlock - 1) / kUsersPerBlock, pool,
                   [&](int64_t block, std::string& text) {
                     const int64_t end = std::min(n, (block + 1) * kUsersPerBlock);
                     for (int64_t u = block * kUsersPerBlock; u < end; ++u)
                       big_rows_of(model, curve, u, text);
                   });
}

int64_t write_small(const Model& model, const PlayCurve& curve, const std::filesystem::path& folder,
                    ThreadPool& pool) {
  const int64_t users = model.sizes.small_users, videos = model.sizes.small_videos;
  std::vector<double> rows(static_cast<size_t>(users), static_cast<double>(videos));
  for (int64_t cell = 0; cell < users * videos; ++cell) rows[cell / videos] -= model.missing[cell];
  const std::vector<int64_t> without_time = shares(rows, model.sizes.small_without_time);
  return write_csv(
      folder / "small_matrix.csv", kMatrixHeader, users, pool,
      [&](int64_t i, std::string& text) { small_rows_of(model, curve, i, without_time[i], text); });
}

}  // namespace

SynthReport synthesize(const SynthOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  synth_sizes(options.scale);
  KT_CHECK(options.threads >= 0);
  ThreadPool pool(options.threads > 0 ? static_cast<int>(options.threads) : usable_cpus());
  std::error_code ignored;
  if (std::filesystem::is_directory(options.out, ignored) &&
      std::filesystem::is_empty(options.out, ignored))
    std::filesystem::remove(options.out, ignored);
  NewFolder folder(options.out, "nothing is overwritten: give another --out, or remove it first");

  const Model model = plan_model(options, pool);
  int64_t bytes = write_side_tables(model, folder.path(), pool);
  std::optional<PlayCurve> small, big;
  pool.parallel_for(2, [&](int64_t matrix, int) {
    matrix == 0 ? small.emplace(small_play_curve(model)) : big.emplace(big_play_curve(model));
  });
  const ProgressBar bar("synth", model.sizes.small_rows() + model.sizes.big_rows, "rows");
  bytes += write_small(model, *small, folder.path(), pool);
  bytes += write_big(model, *big, folder.path(), pool);
  const std::string marker =
      fmt::format("kuaitrain synthetic replica, not KuaiRec: version=1 scale={} seed={}\n",
                  options.scale, options.seed);
  write_new_file(folder.path() / kSyntheticMarkerFile, marker);
  folder.commit();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return {model.sizes, bytes + static_cast<int64_t>(marker.size()), seconds.count()};
}

}  // namespace kt
