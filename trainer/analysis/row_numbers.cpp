#include "trainer/analysis/row_numbers.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "sharding/batch_statistics.h"
#include "trainer/analysis/order_counts.h"

namespace kt {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kHeadRows = 5;
constexpr double kFirstSecond = -62'135'596'800., kAfterLastSecond = 253'402'300'800.;
constexpr int64_t kDay_s = 86'400;

int64_t length_class(int32_t video_duration) {
  return std::ranges::upper_bound(kLengthEnds, video_duration) - kLengthEnds.begin();
}

/// Moments of a column, a piece at a time.
struct PieceMoments {
  explicit PieceMoments(int64_t pieces)
      : leaves(pieces * 3), least(pieces, INFINITY), most(pieces, -INFINITY) {}

  template <class Value>
  void take(int64_t piece, const std::vector<Value>& column, Value limit) {
    int64_t count = 0;
    double sum = 0, squares = 0;
    Value low = std::numeric_limits<Value>::max(), high = std::numeric_limits<Value>::lowest();
    for (const Value value : column) {
      if (value > limit) continue;
      ++count;
      sum += value;
      low = std::min(low, value);
      high = std::max(high, value);
    }
    const double mean = count == 0 ? 0 : low == high ? low : sum / static_cast<double>(count);
    for (const Value value : column)
      if (value <= limit) squares += (value - mean) * (value - mean);
    leaves[3 * piece] = static_cast<double>(count);
    leaves[3 * piece + 1] = mean;
    leaves[3 * piece + 2] = squares;
    if (count == 0) return;
    least[piece] = low;
    most[piece] = high;
  }
  ColumnMoments all() const {
    const std::vector<double> merged = merge_moments(leaves, 1);
    return {.count = static_cast<int64_t>(merged[0]),
            .mean = merged[1],
            .squares = merged[2],
            .min = std::ranges::min(least),
            .max = std::ranges::max(most)};
  }

  std::vector<double> leaves;  ///< [pieces, 3] rows, mean, squared deviations
  std::vector<double> least, most;
};

/// What one piece adds to counts and to sums a video; a thread's, kept for its next piece.
struct Lane {
  std::vector<double> item_sum;
  std::vector<int64_t> item_rows;
  std::array<int64_t, kThresholds.size()> above{};
  int64_t positive = 0, liked = 0, pairs = 0, most_repeats = 0, block_cells = 0;
  std::array<LengthClass, kLengths> lengths{};
  Activity activity;
  std::vector<HeadRow> head;
  Histogram labels;
  // To see pairs again: the last user who had an item, and how often.
  std::vector<int32_t> last_user, times;
};

class Look {
 public:
  Look(const RowTable& table, const RowView& view, ThreadPool& pool)
      : table_(table),
        view_(view),
        pool_(pool),
        lanes_(std::min<int64_t>(pool.threads(), table.pieces)),
        label_(table.pieces),
        label_to_5_(table.pieces),
        play_(table.pieces),
        length_(table.pieces),
        label_order_(static_cast<int>(lanes_.size())),
        length_order_(static_cast<int>(lanes_.size())) {
    for (int64_t c = 0; c < kLengths + 1; ++c)
      play_orders_.emplace_back(static_cast<int>(lanes_.size()));
    found_.user_rows.assign(view.users, 0);
    found_.user_liked.assign(view.users, 0);
    found_.user_sum.assign(view.users, 0);
    found_.user_mean.assign(view.users, kUndefined);
    found_.user_variance.assign(view.users, kUndefined);
    found_.item_rows.assign(view.items, 0);
    found_.item_sum.assign(view.items, 0);
    found_.item_mean.assign(view.items, kUndefined);
    for (Lane& lane : lanes_) {
      lane.item_sum.assign(view.items, 0);
      lane.item_rows.assign(view.items, 0);
      lane.last_user.assign(view.items, -1);
      lane.times.assign(view.items, 0);
    }
  }

  RowNumbers numbers() {
    over_pieces(
        [&](const RowPiece& piece, int64_t index, int64_t lane) { see(piece, index, lane); });
    describe_moments();
    over_pieces([&](const RowPiece& piece, int64_t, int64_t lane) { see_again(piece, lane); });
    return finished();
  }

 private:
  /// Pieces in rounds of one a lane; `work(piece, index, lane)` of a round runs at once, then sums are taken in order.
  template <class Work>
  void over_pieces(Work&& work) {
    const int64_t lanes = std::ssize(lanes_);
    for (int64_t begin = 0; begin < table_.pieces; begin += lanes) {
      pool_.parallel_for(std::min(lanes, table_.pieces - begin), [&](int64_t lane, int) {
        work(table_.read(begin + lane), begin + lane, lane);
      });
      for (Lane& lane : lanes_)
        for (int64_t item = 0; item < view_.items; ++item)
          found_.item_sum[item] += std::exchange(lane.item_sum[item], 0);
    }
  }

  void see(const RowPiece& piece, int64_t index, int64_t of_lane) {
    Lane& lane = lanes_[of_lane];
    const auto number = static_cast<int>(of_lane);
    label_.take(index, piece.label, std::numeric_limits<float>::max());
    label_to_5_.take(index, piece.label, 5.f);
    for (int64_t r = 0; r < piece.size(); ++r) {
      const float label = piece.label[r];
      lane.item_sum[piece.item[r]] += label;
      ++lane.item_rows[piece.item[r]];
      label_order_.count_upper(order_key(label), number);
      lane.positive += label >= 1;
      lane.liked += label >= 2;
      for (size_t t = 0; t < kThresholds.size(); ++t)
        lane.above[t] += label > static_cast<float>(kThresholds[t]);
    }
    if (!piece.video_duration.empty()) {
      play_.take(index, piece.play_duration, std::numeric_limits<int32_t>::max());
      length_.take(index, piece.video_duration, std::numeric_limits<int32_t>::max());
      for (int64_t r = 0; r < piece.size(); ++r) {
        const int64_t length = length_class(piece.video_duration[r]);
        ++lane.lengths[length].rows;
        lane.lengths[length].liked += piece.label[r] >= 2;
        const uint32_t play = order_key(piece.play_duration[r]);
        play_orders_[length].count_upper(play, number);
        play_orders_.back().count_upper(play, number);
        length_order_.count_upper(order_key(piece.video_duration[r]), number);
      }
    }
    see_users(piece, lane);
    see_times(piece, lane);
    see_head(piece, lane);
  }

  /// Users are whole in a piece, so their numbers are one lane's own.
  void see_users(const RowPiece& piece, Lane& lane) {
    std::vector<int64_t> ends(piece.users.size() + 1, 0);
    for (const int32_t user : piece.user) ++ends[user + 1];
    std::partial_sum(ends.begin(), ends.end(), ends.begin());
    std::vector<int64_t> next(ends.begin(), ends.end() - 1), order(piece.size());
    for (int64_t r = 0; r < piece.size(); ++r) order[next[piece.user[r]]++] = r;
    for (size_t k = 0; k < piece.users.size(); ++k) {
      const int32_t user = piece.users[k];
      const std::span rows = std::span(order).subspan(ends[k], ends[k + 1] - ends[k]);
      double sum = 0, squares = 0;
      for (const int64_t r : rows) {
        sum += piece.label[r];
        found_.user_liked[user] += piece.label[r] >= 2;
        see_pair(user, piece.item[r], lane);
      }
      const auto count = static_cast<double>(rows.size());
      const double mean = sum / count;
      for (const int64_t r : rows) squares += (piece.label[r] - mean) * (piece.label[r] - mean);
      found_.user_rows[user] = std::ssize(rows);
      found_.user_sum[user] = sum;
      if (!rows.empty()) found_.user_mean[user] = mean;
      if (rows.size() > 1) found_.user_variance[user] = squares / (count - 1);
    }
  }

  void see_pair(int32_t user, int32_t item, Lane& lane) const {
    if (lane.last_user[item] != user) {
      lane.last_user[item] = user;
      lane.times[item] = 0;
      ++lane.pairs;
      if (!view_.block_users.empty())
        lane.block_cells += view_.block_users[user] && view_.block_items[item];
    }
    lane.most_repeats = std::max<int64_t>(lane.most_repeats, ++lane.times[item]);
  }

  void see_times(const RowPiece& piece, Lane& lane) const {
    for (const double timestamp : piece.timestamp) {
      if (std::isnan(timestamp)) {
        ++lane.activity.without_time;
      } else if (timestamp < kFirstSecond || timestamp >= kAfterLastSecond - view_.utc_offset_s) {
        ++lane.activity.beyond;
      } else {
        const auto second = static_cast<int64_t>(std::floor(timestamp)) + view_.utc_offset_s;
        const int64_t of_day = (second % kDay_s + kDay_s) % kDay_s,
                      day = (second - of_day) / kDay_s;
        ++lane.activity.days[day];
        ++lane.activity.hours[of_day / 3600];
        ++lane.activity.weekdays[((day + 3) % 7 + 7) % 7];  // 1970 began on a Thursday
      }
    }
  }

  static void see_head(const RowPiece& piece, Lane& lane) {
    for (int64_t r = 0; r < piece.size(); ++r) {
      if (lane.head.size() == kHeadRows && piece.row[r] > lane.head.back().row) continue;
      const bool durations = !piece.video_duration.empty();
      lane.head.push_back({piece.row[r], piece.users[piece.user[r]], piece.item[r], piece.label[r],
                           durations ? piece.play_duration[r] : 0,
                           durations ? piece.video_duration[r] : 0,
                           piece.timestamp.empty() ? kUndefined : piece.timestamp[r]});
      keep_first(lane.head);
    }
  }
  static void keep_first(std::vector<HeadRow>& head) {
    std::ranges::sort(head, {}, &HeadRow::row);
    head.resize(std::min(head.size(), kHeadRows));
  }

  void describe_moments() {
    const ColumnMoments label = label_.all();
    found_.rows = label.count;
    labels_.from = view_.ratios ? 0 : label.min;
    labels_.width = view_.ratios ? .05 : label.max > label.min ? (label.max - label.min) / 50 : 1;
    labels_.counts.assign(view_.ratios ? 100 : label.max > label.min ? 50 : 1, 0);
    if (label.count == 0) labels_.counts.clear();
    for (Lane& lane : lanes_) lane.labels = labels_;
    label_order_.want(kRowQuantiles);
    length_order_.want(kRowQuantiles);
    for (OrderCounts& order : play_orders_) order.want(kRowQuantiles);
  }

  void see_again(const RowPiece& piece, int64_t of_lane) {
    const auto number = static_cast<int>(of_lane);
    Histogram& labels = lanes_[of_lane].labels;
    for (const float label : piece.label) {
      label_order_.count_lower(order_key(label), number);
      labels.add(label);
    }
    for (size_t r = 0; r < piece.video_duration.size(); ++r) {
      const uint32_t play = order_key(piece.play_duration[r]);
      play_orders_[length_class(piece.video_duration[r])].count_lower(play, number);
      play_orders_.back().count_lower(play, number);
      length_order_.count_lower(order_key(piece.video_duration[r]), number);
    }
  }

  RowNumbers finished() {
    for (Lane& lane : lanes_) add(lane);
    found_.activity.without_time += found_.has_timestamps ? 0 : found_.rows;
    keep_first(found_.head);
    found_.labels = labels_;
    const ColumnMoments label = label_.all();
    for (int64_t item = 0; item < view_.items; ++item)
      if (found_.item_rows[item] > 0)
        found_.item_mean[item] =
            found_.item_sum[item] / static_cast<double>(found_.item_rows[item]);
    if (label.min == label.max) make_all_equal(label.min);
    const auto real = [&](int64_t place) { return double{value_of_key(label_order_.at(place))}; };
    const auto whole = [](const OrderCounts& order) {
      return [&order](int64_t place) { return static_cast<double>(whole_of_key(order.at(place))); };
    };
    found_.label = column(label, real);
    found_.label_to_5 = label_to_5_.all();
    found_.has_durations = play_orders_.back().size() > 0;
    if (!found_.has_durations) return std::move(found_);
    found_.play_duration = column(play_.all(), whole(play_orders_.back()));
    found_.video_duration = column(length_.all(), whole(length_order_));
    for (int64_t c = 0; c < kLengths; ++c) {
      const int64_t rows = play_orders_[c].size();
      const auto at = whole(play_orders_[c]);
      found_.lengths[c].median_play_ms =
          rows == 0 ? kUndefined : (at((rows - 1) / 2) + at(rows / 2)) / 2;
    }
    return std::move(found_);
  }

  static RowColumn column(const ColumnMoments& moments,
                          const std::function<double(int64_t)>& in_order) {
    if (moments.count == 0) return {moments, {}};
    return {moments, quantile_values(moments.count, kRowQuantiles, in_order)};
  }

  /// Of rows that are all equal: rounding would leave means that differ, and correlations with them.
  void make_all_equal(double label) {
    const auto put = [](std::vector<double>& values, double value) {
      std::ranges::replace_if(
          values, [](double x) { return !std::isnan(x); }, value);
    };
    put(found_.user_mean, label);
    put(found_.user_variance, 0);
    put(found_.item_mean, label);
  }

  void add(Lane& lane) {
    for (size_t t = 0; t < lane.above.size(); ++t) found_.above[t] += lane.above[t];
    found_.positive += lane.positive;
    found_.liked += lane.liked;
    found_.pairs += lane.pairs;
    found_.most_repeats = std::max(found_.most_repeats, lane.most_repeats);
    found_.block_cells += lane.block_cells;
    for (int64_t c = 0; c < kLengths; ++c) {
      found_.lengths[c].rows += lane.lengths[c].rows;
      found_.lengths[c].liked += lane.lengths[c].liked;
    }
    for (int64_t item = 0; item < view_.items; ++item)
      found_.item_rows[item] += lane.item_rows[item];
    for (const auto& [day, rows] : lane.activity.days) found_.activity.days[day] += rows;
    for (size_t h = 0; h < 24; ++h) found_.activity.hours[h] += lane.activity.hours[h];
    for (size_t d = 0; d < 7; ++d) found_.activity.weekdays[d] += lane.activity.weekdays[d];
    found_.activity.without_time += lane.activity.without_time;
    found_.activity.beyond += lane.activity.beyond;
    found_.has_timestamps = found_.has_timestamps || lane.activity.beyond > 0 ||
                            lane.activity.without_time > 0 || !lane.activity.days.empty();
    found_.head.insert(found_.head.end(), lane.head.begin(), lane.head.end());
    for (size_t b = 0; b < labels_.counts.size(); ++b) labels_.counts[b] += lane.labels.counts[b];
    labels_.above += lane.labels.above;
  }

  const RowTable& table_;
  const RowView& view_;
  ThreadPool& pool_;
  std::vector<Lane> lanes_;
  PieceMoments label_, label_to_5_, play_, length_;
  OrderCounts label_order_, length_order_;
  std::vector<OrderCounts> play_orders_;  ///< [lengths + 1] of a length each, then of all
  Histogram labels_;
  RowNumbers found_;
};

}  // namespace

RowNumbers look_through(const RowTable& table, const RowView& view, ThreadPool& pool) {
  return Look(table, view, pool).numbers();
}

}  // namespace kt
