#include "io/synth/synth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <unordered_set>
#include <vector>

#include "io/files/files.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using Row = std::vector<std::string>;

/// A plain CSV reader: records end at \n outside quotes, never at \r.
std::vector<Row> read_csv(const fs::path& path) {
  const std::string text = read_text_file(path);
  std::vector<Row> rows;
  Row row;
  std::string field;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '"' && i + 1 < text.size() && text[i + 1] == '"')
        field += text[++i];
      else if (c == '"')
        quoted = false;
      else
        field += c;
    } else if (c == '"') {
      quoted = true;
    } else if (c == ',' || c == '\n') {
      row.push_back(field);
      field.clear();
      if (c == '\n') rows.push_back(row), row.clear();
    } else {
      field += c;
    }
  }
  EXPECT_TRUE(row.empty() && field.empty()) << path << " does not end in a line feed";
  return rows;
}

double number(const std::string& text) { return std::stod(text); }

std::string joined(const Row& row) {
  std::string line;
  for (const std::string& field : row) line += (line.empty() ? "" : ",") + field;
  return line;
}

fs::path fresh(const std::string& name) {
  const fs::path path = fs::path(::testing::TempDir()) /
                        ("kuaitrain-synth-" + name + "-" + std::to_string(::getpid()));
  fs::remove_all(path);
  return path;
}

fs::path made(const std::string& name, double scale, uint64_t seed, int64_t threads) {
  const fs::path path = fresh(name);
  synthesize({.out = path, .scale = scale, .seed = seed, .threads = threads});
  return path;
}

const std::vector<std::string> kFiles = {"big_matrix.csv",
                                         "small_matrix.csv",
                                         "user_features.csv",
                                         "item_categories.csv",
                                         "kuairec_caption_category.csv",
                                         "social_network.csv",
                                         "item_daily_features.csv",
                                         "SYNTHETIC.txt"};

/// One replica of scale .05 for every test of its content.
struct Replica {
  SynthSizes sizes = synth_sizes(0.05);
  fs::path path = made("replica", 0.05, 7, 2);
  std::vector<Row> big = read_csv(path / "big_matrix.csv"),
                   small = read_csv(path / "small_matrix.csv"),
                   users = read_csv(path / "user_features.csv"),
                   tags = read_csv(path / "item_categories.csv"),
                   captions = read_csv(path / "kuairec_caption_category.csv"),
                   friends = read_csv(path / "social_network.csv"),
                   daily = read_csv(path / "item_daily_features.csv");
  ~Replica() { fs::remove_all(path); }
};
const Replica& replica() {
  static const Replica instance;
  return instance;
}

double quantile(std::vector<double> values, double p) {
  const auto at = values.begin() + static_cast<int64_t>(p * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

std::vector<double> column(const std::vector<Row>& rows, size_t index) {
  std::vector<double> values;
  for (size_t r = 1; r < rows.size(); ++r) values.push_back(number(rows[r][index]));
  return values;
}

TEST(SynthSizes, ScaleOneIsKuaiRec) {
  const SynthSizes sizes = synth_sizes(1);
  EXPECT_EQ(sizes.users, 7176);
  EXPECT_EQ(sizes.videos, 10728);
  EXPECT_EQ(sizes.small_users, 1411);
  EXPECT_EQ(sizes.small_videos, 3327);
  EXPECT_EQ(sizes.small_rows(), 4676570);
  EXPECT_EQ(sizes.small_without_time, 181992);
  EXPECT_EQ(sizes.big_rows, 12530806);
  EXPECT_EQ(sizes.big_duplicates, 965819);
  EXPECT_EQ(sizes.big_rows - sizes.big_duplicates - sizes.big_event_duplicates, 11562802);
  EXPECT_EQ(sizes.daily_rows, 343341);
  EXPECT_EQ(sizes.daily_keys, 194155);
  EXPECT_EQ(sizes.social_rows, 472);
}

TEST(SynthSizes, SidesGrowWithTheRootAndRowsWithTheScale) {
  const SynthSizes sizes = synth_sizes(0.25);
  EXPECT_EQ(sizes.users, 3588);
  EXPECT_EQ(sizes.videos, 5364);
  EXPECT_EQ(sizes.small_users, 706);
  EXPECT_EQ(sizes.big_rows, 3132702);
  const SynthSizes least = synth_sizes(1e-7);
  EXPECT_EQ(least.users, 20);
  EXPECT_EQ(least.small_users, 20);
  EXPECT_EQ(least.small_videos, 20);
  EXPECT_EQ(least.videos, 40);
}

TEST(Synth, HeadersAreTheOfficialOnes) {
  const Replica& r = replica();
  const std::string matrix =
      "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio";
  EXPECT_EQ(joined(r.big[0]), matrix);
  EXPECT_EQ(joined(r.small[0]), matrix);
  EXPECT_EQ(joined(r.tags[0]), "video_id,feat");
  EXPECT_EQ(joined(r.friends[0]), "user_id,friend_list");
  EXPECT_EQ(joined(r.captions[0]),
            "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_"
            "category_name,"
            "second_level_category_id,second_level_category_name,third_level_category_id,"
            "third_level_category_name");
  EXPECT_EQ(joined(r.users[0]),
            "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
            "follow_user_num,"
            "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_"
            "num_range,"
            "register_days,register_days_range,onehot_feat0,onehot_feat1,onehot_feat2,onehot_feat3,"
            "onehot_feat4,"
            "onehot_feat5,onehot_feat6,onehot_feat7,onehot_feat8,onehot_feat9,onehot_feat10,onehot_"
            "feat11,"
            "onehot_feat12,onehot_feat13,onehot_feat14,onehot_feat15,onehot_feat16,onehot_feat17");
  EXPECT_EQ(
      joined(r.daily[0]),
      "video_id,date,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
      "video_width,"
      "video_height,music_id,video_tag_id,video_tag_name,show_cnt,show_user_num,play_cnt,play_user_"
      "num,"
      "play_duration,complete_play_cnt,complete_play_user_num,valid_play_cnt,valid_play_user_num,"
      "long_time_play_cnt,long_time_play_user_num,short_time_play_cnt,short_time_play_user_num,"
      "play_progress,"
      "comment_stay_duration,like_cnt,like_user_num,click_like_cnt,double_click_cnt,cancel_like_"
      "cnt,"
      "cancel_like_user_num,comment_cnt,comment_user_num,direct_comment_cnt,reply_comment_cnt,"
      "delete_comment_cnt,delete_comment_user_num,comment_like_cnt,comment_like_user_num,follow_"
      "cnt,"
      "follow_user_num,cancel_follow_cnt,cancel_follow_user_num,share_cnt,share_user_num,download_"
      "cnt,"
      "download_user_num,report_cnt,report_user_num,reduce_similar_cnt,reduce_similar_user_num,"
      "collect_cnt,"
      "collect_user_num,cancel_collect_cnt,cancel_collect_user_num");
  for (const auto* table : {&r.big, &r.small, &r.users, &r.tags, &r.captions, &r.friends, &r.daily})
    for (const Row& row : *table) ASSERT_EQ(row.size(), table->front().size());
}

TEST(Synth, RowsAreThePlannedOnes) {
  const Replica& r = replica();
  const auto rows = [](const std::vector<Row>& table) {
    return static_cast<int64_t>(table.size()) - 1;
  };
  EXPECT_EQ(rows(r.big), r.sizes.big_rows);
  EXPECT_EQ(rows(r.small), r.sizes.small_rows());
  EXPECT_EQ(rows(r.users), r.sizes.users);
  EXPECT_EQ(rows(r.tags), r.sizes.videos);
  EXPECT_EQ(rows(r.captions), r.sizes.videos);
  EXPECT_EQ(rows(r.friends), r.sizes.social_rows);
  EXPECT_EQ(rows(r.daily), r.sizes.daily_rows);
  std::set<std::string> users, videos;
  for (size_t i = 1; i < r.big.size(); ++i) users.insert(r.big[i][0]), videos.insert(r.big[i][1]);
  EXPECT_EQ(static_cast<int64_t>(users.size()), r.sizes.users);
  EXPECT_EQ(static_cast<int64_t>(videos.size()), r.sizes.videos);
}

TEST(Synth, DuplicatesCountAsPlantedAndAreScattered) {
  const Replica& r = replica();
  std::unordered_set<std::string> rows, events;
  int64_t duplicates = 0, event_duplicates = 0, adjacent = 0;
  for (size_t i = 1; i < r.big.size(); ++i) {
    const Row& row = r.big[i];
    const bool again = !rows.insert(joined(row)).second;
    duplicates += again;
    adjacent += again && row == r.big[i - 1];
    event_duplicates +=
        !events.insert(row[0] + "," + row[1] + "," + row[2] + "," + row[3] + "," + row[6]).second;
  }
  EXPECT_EQ(duplicates, r.sizes.big_duplicates);
  EXPECT_EQ(event_duplicates, r.sizes.big_duplicates + r.sizes.big_event_duplicates);
  EXPECT_GT(adjacent, duplicates / 4);
  EXPECT_LT(adjacent, duplicates * 3 / 4);
}

TEST(Synth, BlockIsCompleteButForItsHolesAndMissingFromBig) {
  const Replica& r = replica();
  std::set<std::string> users, videos, cells;
  for (size_t i = 1; i < r.small.size(); ++i) {
    users.insert(r.small[i][0]);
    videos.insert(r.small[i][1]);
    EXPECT_TRUE(cells.insert(r.small[i][0] + "," + r.small[i][1]).second);
  }
  EXPECT_EQ(static_cast<int64_t>(users.size()), r.sizes.small_users);
  EXPECT_EQ(static_cast<int64_t>(videos.size()), r.sizes.small_videos);
  EXPECT_EQ(static_cast<int64_t>(cells.size()),
            r.sizes.small_users * r.sizes.small_videos - r.sizes.small_missing);
  for (size_t i = 1; i < r.big.size(); ++i)
    ASSERT_FALSE(users.contains(r.big[i][0]) && videos.contains(r.big[i][1])) << joined(r.big[i]);
}

TEST(Synth, MatricesAreWrittenAsTheOriginal) {
  const Replica& r = replica();
  int64_t without_time = 0, several_durations = 0, zero_plays = 0, other_day = 0;
  std::map<std::string, std::set<std::string>> durations;
  std::map<std::string, int64_t> repeats;
  const auto check = [&](const Row& row, bool is_small) {
    const double ratio = number(row[2]) / number(row[3]);
    double read = 0;
    std::from_chars(row[7].data(), row[7].data() + row[7].size(), read);
    ASSERT_EQ(read, ratio) << joined(row);
    ASSERT_NE(row[7].find_first_of(".e"), std::string::npos) << joined(row);
    if (row[4].empty()) {
      ++without_time;
      ASSERT_TRUE(is_small && row[5].empty() && row[6].empty()) << joined(row);
      return;
    }
    ASSERT_EQ(row[5].size(), is_small ? 10u : 8u) << joined(row);
    if (is_small) {
      ASSERT_EQ(row[5].substr(8), ".0");
    }
    // UTC+8, milliseconds without zeros at the end.
    const double timestamp = number(row[6]);
    ASSERT_GE(timestamp, 1592872451.373);
    ASSERT_LE(timestamp, 1599694332.427);
    const int64_t second = (static_cast<int64_t>(timestamp) + 8 * 3600) % 86400;
    char clock[16];
    std::snprintf(clock, sizeof clock, "%02d:%02d:%02d", static_cast<int>(second / 3600),
                  static_cast<int>(second / 60 % 60), static_cast<int>(second % 60));
    ASSERT_EQ(row[4].substr(11, 8), clock) << joined(row);
    const std::string fraction = row[6].substr(row[6].find('.'));
    ASSERT_EQ(row[4].substr(19), fraction == ".0" ? "" : fraction) << joined(row);
    other_day +=
        row[4].substr(0, 4) + row[4].substr(5, 2) + row[4].substr(8, 2) != row[5].substr(0, 8);
  };
  for (size_t i = 1; i < r.big.size(); ++i) {
    check(r.big[i], false);
    durations[r.big[i][1]].insert(r.big[i][3]);
    ++repeats[r.big[i][0] + "," + r.big[i][1]];
    zero_plays += r.big[i][2] == "0";
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(without_time, 0);
  for (size_t i = 1; i < r.small.size(); ++i) {
    check(r.small[i], true);
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(without_time, r.sizes.small_without_time);
  for (const auto& [video, values] : durations) {
    several_durations += values.size() > 1;
    const double least = number(*std::min_element(
        values.begin(), values.end(), [](auto& a, auto& b) { return number(a) < number(b); }));
    for (const auto& value : values) EXPECT_LT(number(value), least * 1.01);
  }
  EXPECT_NEAR(static_cast<double>(several_durations) / static_cast<double>(r.sizes.videos), 0.33,
              0.05);
  EXPECT_GT(zero_plays, 0);
  EXPECT_GT(other_day, 100);
  EXPECT_LT(other_day, r.sizes.big_rows / 50);
  int64_t most = 0;
  for (const auto& [pair, times] : repeats) most = std::max(most, times);
  EXPECT_GT(most, 400);
}

TEST(Synth, TrapsOfTheSideTablesAreThere) {
  const Replica& r = replica();
  // Read as raw bytes: bare carriage returns sit in fields without quotes, and each record is one line.
  const std::string text = read_text_file(r.path / "kuairec_caption_category.csv");
  int64_t returns = 0, lines = 0, quotes = 0;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line); ++lines) {
    quotes += line.find("\"\"") != line.npos;
    if (line.find('\r') == line.npos) continue;
    ++returns;
    EXPECT_EQ(line.find('"'), line.npos);
    EXPECT_NE(line.back(), '\r');
  }
  EXPECT_EQ(returns, 4);
  EXPECT_EQ(lines, r.sizes.videos + 1);
  EXPECT_GT(quotes, 0);
  int64_t unknown = 0, empty_captions = 0, lists = 0, commas = 0;
  for (size_t i = 1; i < r.captions.size(); ++i) {
    const Row& row = r.captions[i];
    EXPECT_EQ(row[0], std::to_string(i - 1));
    unknown += row[8] == "-124" && row[9] == "UNKNOWN";
    empty_captions += row[2].empty();
    commas += row[2].find(',') != std::string::npos;
    lists += row[3].find(',') != std::string::npos;
    EXPECT_TRUE(row[3].front() == '[' && row[3].back() == ']');
  }
  EXPECT_NEAR(static_cast<double>(unknown) / static_cast<double>(r.sizes.videos), 6832.0 / 10728,
              0.001);
  EXPECT_NEAR(static_cast<double>(empty_captions) / static_cast<double>(r.sizes.videos),
              1355.0 / 10728, 0.002);
  EXPECT_GT(commas, 50);
  EXPECT_GT(lists, 500);

  std::map<size_t, int64_t> tags_of;
  for (size_t i = 1; i < r.tags.size(); ++i) {
    const std::string& list = r.tags[i][1];
    ++tags_of[static_cast<size_t>(std::count(list.begin(), list.end(), ','))];
  }
  EXPECT_EQ(tags_of.size(), 4u);
  EXPECT_NEAR(static_cast<double>(tags_of[0]) / static_cast<double>(r.sizes.videos), 8970.0 / 10728,
              0.001);

  int64_t empty = 0;
  std::set<std::string> active;
  for (size_t i = 1; i < r.users.size(); ++i) {
    empty += r.users[i][13 + 4].empty();
    active.insert(r.users[i][1]);
  }
  EXPECT_EQ(empty, 45);  // 201 of 7,176
  EXPECT_THAT(active,
              ::testing::ElementsAre("UNKNOWN", "full_active", "high_active", "middle_active"));
}

TEST(Synth, DailyKeysRepeatAndCellsAreEmpty) {
  const Replica& r = replica();
  std::map<std::string, int64_t> keys;
  int64_t no_duration = 0, no_tag = 0, no_collect = 0, advertisements = 0;
  for (size_t i = 1; i < r.daily.size(); ++i) {
    const Row& row = r.daily[i];
    ++keys[row[0] + "," + row[1]];
    no_duration += row[7].empty();
    no_tag += row[12].empty();
    no_collect += row[54].empty();
    ASSERT_EQ(row[54].empty(), row[57].empty());
    advertisements += row[3] == "AD";
    ASSERT_GE(row[4], "2019-05-18");
    ASSERT_LE(row[4], "2020-09-05");
    ASSERT_GE(number(row[13]), number(row[15])) << "more plays than shows";
  }
  EXPECT_EQ(static_cast<int64_t>(keys.size()), r.sizes.daily_keys);
  int64_t shared = 0;
  for (const auto& [key, rows] : keys) shared += rows > 1 ? rows : 0;
  const double rows = static_cast<double>(r.sizes.daily_rows);
  EXPECT_NEAR(static_cast<double>(shared) / rows, 226111.0 / 343341, 0.002);
  EXPECT_NEAR(static_cast<double>(no_duration) / rows, 10598.0 / 343341, 0.001);
  EXPECT_NEAR(static_cast<double>(no_tag) / rows, 32434.0 / 343341, 0.001);
  EXPECT_NEAR(static_cast<double>(no_collect) / rows, 69683.0 / 343341, 0.001);
  EXPECT_NEAR(static_cast<double>(advertisements) / rows, 1153.0 / 343341, 0.001);
}

TEST(Synth, QuantilesAreNearTheRealOnes) {
  const Replica& r = replica();
  const std::vector<double> big = column(r.big, 7), small = column(r.small, 7),
                            play = column(r.small, 2);
  EXPECT_NEAR(quantile(big, .25), .315, .04);
  EXPECT_NEAR(quantile(big, .5), .723, .06);
  EXPECT_NEAR(quantile(big, .75), 1.178, .09);
  EXPECT_NEAR(quantile(big, .99), 4.795, 1);
  EXPECT_NEAR(quantile(small, .25), .468, .05);
  EXPECT_NEAR(quantile(small, .5), .769, .05);
  EXPECT_NEAR(quantile(small, .75), 1.121, .09);
  EXPECT_NEAR(*std::max_element(big.begin(), big.end()), 573.457, 5);
  EXPECT_NEAR(quantile(play, .05), 2009, 200);
  EXPECT_NEAR(quantile(play, .5), 7589, 300);
  EXPECT_NEAR(quantile(play, .95), 15791, 1200);
  EXPECT_NEAR(quantile(column(r.small, 3), .5), 9600, 400);
  // The duration effect: play time does not follow length, so the ratio does.
  std::vector<double> short_play, long_play;
  for (size_t i = 1; i < r.small.size(); ++i) {
    const double ms = number(r.small[i][3]);
    if (ms < 7000) short_play.push_back(number(r.small[i][2]));
    if (ms > 15000) long_play.push_back(number(r.small[i][2]));
  }
  EXPECT_NEAR(quantile(short_play, .5), quantile(long_play, .5), 500);
}

/// The planted tastes are the same in both matrices: a user's, and a video's, leaning in big shows in small.
TEST(Synth, UsersKeepTheirLeaningAcrossMatrices) {
  const Replica& r = replica();
  const auto leaning = [](const std::vector<Row>& rows) {
    std::map<std::string, std::pair<double, double>> sums;
    for (size_t i = 1; i < rows.size(); ++i) {
      auto& [sum, n] = sums[rows[i][0]];
      sum += std::log(number(rows[i][2]) + 500);
      n += 1;
    }
    return sums;
  };
  const auto big = leaning(r.big), small = leaning(r.small);
  double n = 0, x = 0, y = 0, xx = 0, yy = 0, xy = 0;
  for (const auto& [user, sum] : small) {
    const double a = big.at(user).first / big.at(user).second, b = sum.first / sum.second;
    n += 1, x += a, y += b, xx += a * a, yy += b * b, xy += a * b;
  }
  EXPECT_GT((n * xy - x * y) / std::sqrt((n * xx - x * x) * (n * yy - y * y)), 0.8);
}

TEST(Synth, BytesDependOnScaleAndSeedAlone) {
  const fs::path one = made("one", 0.003, 5, 1), three = made("three", 0.003, 5, 3),
                 again = made("again", 0.003, 5, 1), other = made("other", 0.003, 6, 1);
  for (const std::string& file : kFiles) {
    const std::string text = read_text_file(one / file);
    EXPECT_TRUE(text == read_text_file(three / file)) << file << ": 1 and 3 threads differ";
    EXPECT_TRUE(text == read_text_file(again / file)) << file << ": two runs differ";
    EXPECT_FALSE(text == read_text_file(other / file)) << file << ": another seed, the same file";
  }
  for (const fs::path& path : {one, three, again, other}) fs::remove_all(path);
}

TEST(Synth, SmallestReplicaIsWhole) {
  for (const double scale : {1e-7, 2e-5, 1e-4}) {
    const SynthSizes sizes = synth_sizes(scale);
    const fs::path path = made("tiny", scale, 1, 2);
    const std::vector<Row> big = read_csv(path / "big_matrix.csv"),
                           small = read_csv(path / "small_matrix.csv");
    EXPECT_EQ(static_cast<int64_t>(big.size()) - 1, sizes.big_rows);
    EXPECT_EQ(static_cast<int64_t>(small.size()) - 1, sizes.small_rows());
    EXPECT_EQ(static_cast<int64_t>(read_csv(path / "user_features.csv").size()) - 1, sizes.users);
    EXPECT_EQ(static_cast<int64_t>(read_csv(path / "item_daily_features.csv").size()) - 1,
              sizes.daily_rows);
    EXPECT_GE(sizes.social_rows, 1);
    EXPECT_NE(read_text_file(path / "kuairec_caption_category.csv").find('\r'), std::string::npos);
    std::set<std::string> cells;
    for (size_t i = 1; i < small.size(); ++i) cells.insert(small[i][0] + "," + small[i][1]);
    for (size_t i = 1; i < big.size(); ++i)
      EXPECT_FALSE(cells.contains(big[i][0] + "," + big[i][1]));
    fs::remove_all(path);
  }
}

TEST(Synth, MarkerTellsVersionScaleAndSeed) {
  EXPECT_EQ(read_text_file(replica().path / kSyntheticMarkerFile),
            "kuaitrain synthetic replica, not KuaiRec: version=1 scale=0.05 seed=7\n");
}

std::string message_of(const SynthOptions& options) {
  try {
    synthesize(options);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST(SynthErrors, ScaleOutOfRange) {
  const fs::path out = fresh("scale");
  for (const double scale : {0.0, -1.0, 10.5, std::nan("")}) {
    const std::string message = message_of({.out = out, .scale = scale});
    EXPECT_THAT(message, ::testing::HasSubstr("--scale: got "));
    EXPECT_THAT(message, ::testing::HasSubstr("expected a number above 0 and at most 10"));
    EXPECT_FALSE(fs::exists(out));
  }
}

TEST(SynthErrors, FolderWithContentIsLeftAlone) {
  const fs::path out = fresh("taken");
  fs::create_directories(out);
  write_new_file(out / "mine.txt", "mine");
  const std::string message = message_of({.out = out, .scale = 1e-4});
  EXPECT_THAT(message, ::testing::HasSubstr(out.string()));
  EXPECT_THAT(message, ::testing::HasSubstr("exists already"));
  EXPECT_THAT(message, ::testing::HasSubstr("nothing is overwritten"));
  EXPECT_EQ(read_text_file(out / "mine.txt"), "mine");
  EXPECT_EQ(std::distance(fs::directory_iterator(out), fs::directory_iterator()), 1);
  fs::remove_all(out);
}

TEST(SynthErrors, EmptyFolderIsTaken) {
  const fs::path out = fresh("empty");
  fs::create_directories(out);
  synthesize({.out = out, .scale = 1e-4});
  EXPECT_TRUE(fs::exists(out / "big_matrix.csv"));
  fs::remove_all(out);
}

/// A limit on the size of files stands in for a full disk.
TEST(SynthErrors, FullDiskLeavesNothing) {
  const fs::path parent = fresh("full");
  fs::create_directories(parent);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit tight{.rlim_cur = 100'000, .rlim_max = before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &tight);
  const std::string message = message_of({.out = parent / "replica", .scale = 0.01, .threads = 2});
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, ::testing::HasSubstr("cannot write it"));
  EXPECT_THAT(message, ::testing::HasSubstr("free space"));
  EXPECT_TRUE(fs::is_empty(parent));
  fs::remove_all(parent);
}

}  // namespace
}  // namespace kt
