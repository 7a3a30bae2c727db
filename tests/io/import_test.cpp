#include "io/dataset/import.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <nlohmann/json.hpp>

#include "io/dataset/hdf5_file.h"
#include "launch/base/math.h"
#include "launch/base/random.h"
#include "tests/io/small_source.h"

namespace kt {
namespace {

using namespace std::string_literals;

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsNan;
using Import = SmallSource;

const std::string kUserFeaturesHeader =
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
    "friend_user_num_range,register_days,register_days_range,onehot_feat0,onehot_feat1,"
    "onehot_feat2,onehot_feat3,onehot_feat4,onehot_feat5,onehot_feat6,onehot_feat7,onehot_feat8,"
    "onehot_feat9,onehot_feat10,onehot_feat11,onehot_feat12,onehot_feat13,onehot_feat14,"
    "onehot_feat15,onehot_feat16,onehot_feat17\n";

std::string user_row(int user) {
  return std::to_string(user) +
         ",high_active,0,0,0,5,\"(0,10]\",0,0,0,0,107,61-90,0,1,17,638,,0,1,6,184,6,3,0,0,0,0,0,0,"
         "0\n";
}

const std::string kCaptionHeader =
    "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,"
    "first_level_category_name,second_level_category_id,second_level_category_name,"
    "third_level_category_id,third_level_category_name\n";

const std::string kDailyHeader =
    "video_id,date,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
    "video_width,video_height,music_id,video_tag_id,video_tag_name,show_cnt,show_user_num,play_cnt,"
    "play_user_num,play_duration,complete_play_cnt,complete_play_user_num,valid_play_cnt,"
    "valid_play_user_num,long_time_play_cnt,long_time_play_user_num,short_time_play_cnt,"
    "short_time_play_user_num,play_progress,comment_stay_duration,like_cnt,like_user_num,"
    "click_like_cnt,double_click_cnt,cancel_like_cnt,cancel_like_user_num,comment_cnt,"
    "comment_user_num,direct_comment_cnt,reply_comment_cnt,delete_comment_cnt,"
    "delete_comment_user_num,comment_like_cnt,comment_like_user_num,follow_cnt,follow_user_num,"
    "cancel_follow_cnt,cancel_follow_user_num,share_cnt,share_user_num,download_cnt,"
    "download_user_num,report_cnt,report_user_num,reduce_similar_cnt,reduce_similar_user_num,"
    "collect_cnt,collect_user_num,cancel_collect_cnt,cancel_collect_user_num\n";

/// A day of a video: `duration` as it is, show_cnt = shows, all other counts 1.
std::string daily_row(int item, const std::string& date, const std::string& duration, int shows) {
  std::string row = std::to_string(item) + "," + date +
                    ",3309,NORMAL,2020-03-30,ShortImport,public," + duration +
                    ",720,1280,3350323409,841,tag," + std::to_string(shows);
  for (int i = 14; i < 26; ++i) row += ",1";
  row += ",0.79986";
  for (int i = 27; i < 54; ++i) row += ",1";
  return row + ",,,,\n";
}

TEST_F(Import, KeepsRowsIdsAndCounts) {
  write_plain_tables();
  const Dataset dataset = import();
  EXPECT_THAT(training_rows(dataset),
              ElementsAre(PlainRow{"1", "10", .5f, 0}, PlainRow{"1", "11", 2.f, 1},
                          PlainRow{"2", "10", .25f, 2}));
  EXPECT_EQ(dataset.users(), 2);
  EXPECT_EQ(dataset.items(), 3);
  EXPECT_EQ(dataset.train_rows(), 3);
  EXPECT_EQ(dataset.shards(), 4);
  EXPECT_THAT(dataset.shard_rows(), ElementsAre(2, 1, 0, 0));
  EXPECT_TRUE(dataset.has_timestamps());
  EXPECT_FALSE(dataset.has_daily());
  EXPECT_DOUBLE_EQ(dataset.train_label_mean(), 2.75 / 3);
  EXPECT_THAT(dataset.read_timestamps(1), ElementsAre(1593965303.4));
  const Hdf5File shard = Hdf5File::open(options_.out / "shards/shard-0000.h5");
  EXPECT_THAT(shard.read<int32_t>("play_duration"), ElementsAre(500, 2000));
  EXPECT_THAT(shard.read<int32_t>("date"), ElementsAre(20200705, 20200705));

  const TestTable test = dataset.read_test();
  EXPECT_THAT(test.users, ElementsAre(0, 1));
  EXPECT_THAT(test.offsets, ElementsAre(0, 1, 2));
  EXPECT_THAT(test.item, ElementsAre(2, 1));
  EXPECT_THAT(test.label, ElementsAre(.75, .25));
  EXPECT_THAT(test.by_label, ElementsAre(0, 0));
  EXPECT_THAT(test.label_rank, ElementsAre(1, 0));
  EXPECT_THAT(test.duration_p80, ElementsAre(1, 0));  // above the lower label of two
  EXPECT_THAT(test.label_sums.label, ElementsAre(.75, .25));
  EXPECT_THAT(test.label_sums.gain, ElementsAre(.75, .25));
  EXPECT_THAT(test.label_sums.gain_exp, ElementsAre(math::exp2(.75) - 1, math::exp2(.25) - 1));
  EXPECT_THAT(test.video_duration, ElementsAre(400, 400));
  const Hdf5File events = Hdf5File::open(options_.out / "test_events.h5");
  EXPECT_THAT(events.read<int32_t>("play_duration"), ElementsAre(300, 100));
  EXPECT_THAT(events.read<int32_t>("date"), ElementsAre(20200705, 0));
  EXPECT_TRUE(std::isnan(events.read<double>("timestamp")[1]));

  const IdTables ids = dataset.read_ids();
  EXPECT_THAT(ids.user_id, ElementsAre("1", "2"));
  EXPECT_THAT(ids.item_id, ElementsAre("10", "11", "12"));
  EXPECT_THAT(ids.user_rows, ElementsAre(2, 1));
  EXPECT_THAT(ids.item_rows, ElementsAre(2, 1, 0));
  EXPECT_EQ(report_.test_only_items, 1);
  EXPECT_EQ(report_.test_only_users, 0);
  const auto& label = dataset.manifest()["columns"]["train"]["watch_ratio"];
  EXPECT_DOUBLE_EQ(label["std"].get<double>(),
                   std::sqrt((.25 + 4 + .0625) / 3 - 2.75 / 3 * 2.75 / 3));
  EXPECT_EQ(label["max"], 2);
  EXPECT_EQ(dataset.manifest()["source"][0]["name"], "big_matrix.csv");
}

TEST_F(Import, ColumnsInAnyOrderAndCrlf) {
  write("big_matrix.csv",
        "watch_ratio,timestamp,date,time,video_duration,play_duration,video_id,user_id\r\n"
        "0.5,,,,1000,500,7,3\r\n");
  write("small_matrix.csv", "\xEF\xBB\xBF" + kInteractionHeader + "3,8,1,2,,,,0.5\n");
  EXPECT_THAT(training_rows(import()), ElementsAre(PlainRow{"3", "7", .5f, 0}));
}

TEST_F(Import, DenseIndicesFollowNumbersNotText) {
  write_big("10,100,1,2,,,,0.5\n9,20,1,2,,,,0.5\n");
  write_small("10,3,1,2,,,,0.5\n");
  const IdTables ids = import().read_ids();
  EXPECT_THAT(ids.user_id, ElementsAre("9", "10"));
  EXPECT_THAT(ids.item_id, ElementsAre("3", "20", "100"));
}

// A rank reads what is of its shards, whichever these are: here more users than are read at once.
TEST_F(Import, UsersOfShardsAreThoseOfTheWholeTable) {
  constexpr int32_t kUsers = 70'000, kShards = 4;
  options_.map = ColumnMap{"u", "i", "x", ""};
  std::string table = "u,i,x\n";
  for (int32_t user = 0; user < kUsers; ++user)
    for (int32_t k = 0; k < 1 + user % 3; ++k) table += fmt::format("{},{},1\n", user, k);
  write("table.csv", table);
  options_.source = source() / "table.csv";
  options_.shards = kShards;
  options_.assign_users = [](std::span<const int64_t> rows, int64_t) {
    std::vector<int32_t> shard;
    for (size_t user = 0; user < rows.size(); ++user)
      shard.push_back(static_cast<int32_t>(7 * user % 5 % kShards));
    return shard;
  };
  const Dataset dataset = import();
  const IdTables ids = dataset.read_ids();
  std::vector<int32_t> in_order;  // of shards
  for (int32_t shard = 0; shard < kShards; ++shard)
    for (int32_t user = 0; user < kUsers; ++user)
      if (ids.user_shard[user] == shard) in_order.push_back(user);
  for (const auto& [begin, end] : {std::pair{0, 4}, {0, 1}, {1, 3}, {2, 2}}) {
    const ShardUsers users = dataset.read_users(begin, end);
    int64_t count = 0;
    for (int32_t user = 0; user < kUsers; ++user) {
      const std::optional<size_t> found = users.find(user);
      const int32_t shard = ids.user_shard[user];
      ASSERT_EQ(found.has_value(), shard >= begin && shard < end) << user;
      if (!found) continue;
      ++count;
      ASSERT_EQ(users.user[*found], user);
      ASSERT_EQ(in_order[users.row[*found]], user);
      ASSERT_EQ(users.user_rows[*found], ids.user_rows[user]);
    }
    EXPECT_EQ(users.size(), count);
    // A share: nothing is kept of other shards.
    for (const size_t held :
         {users.user.capacity(), users.row.capacity(), users.user_rows.capacity()})
      EXPECT_EQ(static_cast<int64_t>(held), count);
  }
  EXPECT_EQ(dataset.read_item_ids(), ids.item_id);
  EXPECT_EQ(dataset.read_item_rows(), ids.item_rows);
  EXPECT_EQ(dataset.count_trained().users, kUsers);
  EXPECT_EQ(dataset.count_trained().items, 3);
}

// Many rows that repeat one another, against a plain loop over all pairs of rows.
TEST_F(Import, DuplicatesAreDroppedAsAPlainLoopDoes) {
  struct Event {
    int user, item, play, video;
    int time;  // 0: none
    bool operator==(const Event&) const = default;
  };
  std::vector<Event> events;
  std::string rows;
  for (uint64_t i = 0; i < 3000; ++i) {
    const auto draw = [&](uint64_t what, uint64_t n) {
      return static_cast<int>(random_bits(1, Purpose::kSynthetic, i, what) % n);
    };
    const Event e{draw(0, 5), draw(1, 6), 100 * draw(2, 3), 200 + 200 * draw(3, 2), draw(4, 4)};
    events.push_back(e);
    const std::string time = e.time == 0 ? ",," : fmt::format("t,20200705,15938789{:02}.5", e.time);
    rows += fmt::format("{},{},{},{},{},{}\n", e.user, e.item, e.play, e.video, time,
                        static_cast<double>(e.play) / e.video);
  }
  std::vector<int64_t> expected;
  for (size_t i = 0; i < events.size(); ++i)
    if (events[i].time == 0 || std::find(events.begin(), events.begin() + static_cast<int64_t>(i),
                                         events[i]) == events.begin() + static_cast<int64_t>(i))
      expected.push_back(static_cast<int64_t>(i));
  ASSERT_LT(expected.size(), 2000u);
  write_big(rows);
  write_small("0,99,1,2,,,,0.5\n");
  std::vector<int64_t> kept;
  for (const PlainRow& row : training_rows(import())) kept.push_back(row.row);
  EXPECT_EQ(kept, expected);
  EXPECT_EQ(report_.duplicates, static_cast<int64_t>(events.size() - expected.size()));

  options_.out = root_ / "all";
  options_.duplicates = Duplicates::kKeep;
  EXPECT_EQ(import().train_rows(), static_cast<int64_t>(events.size()));
  EXPECT_EQ(report_.duplicates, 0);
}

// More than one block of lines, so that several threads have work.
TEST_F(Import, ThreadsDoNotChangeAByte) {
  std::string rows;
  for (uint64_t i = 0; i < 150'000; ++i) {
    const uint64_t bits = random_bits(2, Purpose::kSynthetic, i);
    rows += fmt::format("{},{},{},1000,2020-07-05 00:08:23.438,20200705,{}.25,{}\n", bits % 97,
                        (bits >> 8) % 500, bits % 4000, 1593878900 + bits % 5,
                        static_cast<double>(bits % 4000) / 1000);
  }
  ASSERT_GT(rows.size(), size_t{8} << 20);
  write_big(rows);
  write_small("0,600,1,2,,,,0.5\n");
  write("user_features.csv", [] {
    std::string text = kUserFeaturesHeader;
    for (int user = 0; user < 100; ++user) text += user_row(user);
    return text;
  }());
  options_.threads = 1;
  import();
  const auto one = options_.out;
  options_.threads = 3;
  options_.out = root_ / "three";
  import();
  int64_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(one)) {
    if (!entry.is_regular_file()) continue;
    ++files;
    EXPECT_EQ(read_all(entry.path()), read_all(options_.out / entry.path().lexically_relative(one)))
        << entry.path();
  }
  EXPECT_EQ(files, 4 + 5);  // shards; ids, test, its events, users, manifest
}

TEST_F(Import, TheHashCoversValuesAndShards) {
  write_plain_tables();
  const std::string hash = import().hash();
  options_.out = root_ / "again";
  EXPECT_EQ(import().hash(), hash);
  options_.out = root_ / "shards";
  options_.shards = 8;
  EXPECT_NE(import().hash(), hash);
  options_.shards = 4;
  options_.out = root_ / "values";
  write_small("1,12,300,400,,,,0.75\n2,11,100,500,,,,0.2\n");
  EXPECT_NE(import().hash(), hash);
}

TEST_F(Import, FewerUsersThanShardsLeavesEmptyOnes) {
  write_plain_tables();
  options_.shards = 64;
  const Dataset dataset = import();
  EXPECT_EQ(dataset.shards(), 64);
  EXPECT_EQ(dataset.read_shard(63).size(), 0);
  EXPECT_TRUE(dataset.read_shard(63).users.empty());
  EXPECT_EQ(training_rows(dataset).size(), 3u);
}

TEST_F(Import, UsersWithoutRowsHaveAShard) {
  write_plain_tables();
  write("user_features.csv",
        kUserFeaturesHeader + user_row(1) + user_row(2) + user_row(3) + user_row(9));
  const Dataset dataset = import();
  EXPECT_THAT(dataset.read_ids().user_rows, ElementsAre(2, 1, 0, 0));
  EXPECT_THAT(dataset.read_shard(3).users, ElementsAre(3));
}

TEST_F(Import, SideTables) {
  write_plain_tables();
  write("user_features.csv", kUserFeaturesHeader + user_row(2) + user_row(1));
  write("item_categories.csv", "video_id,feat\n11,[8]\n10,\"[27, 9]\"\n12,[]\n");
  write(
      "kuairec_caption_category.csv",
      kCaptionHeader +
          "10,UNKNOWN,bare\rreturn,\"[a,b]\",8,looks,673,more,-124,UNKNOWN\n"
          "12,UNKNOWN,\"two\nlines, \"\"quoted\"\"\",[],-124,UNKNOWN,-124,UNKNOWN,-124,UNKNOWN\n");
  write("item_daily_features.csv", kDailyHeader + daily_row(11, "20200705", "5966.0", 5) +
                                       daily_row(10, "20200705", "", 6) +
                                       daily_row(11, "20200705", "5966.0", 7));
  write("social_network.csv", "user_id,friend_list\n2,[1]\n");
  const Dataset dataset = import();

  const ItemTexts texts = dataset.read_item_texts();
  EXPECT_THAT(texts.caption, ElementsAre("bare\rreturn", "", "two\nlines, \"quoted\""));
  EXPECT_THAT(texts.category, ElementsAre("looks", "", ""));
  const Hdf5File items = Hdf5File::open(options_.out / "items.h5");
  EXPECT_THAT(items.read<int32_t>("tags"), ElementsAre(27, 9, 8));
  EXPECT_THAT(items.read<int64_t>("tags.offsets"), ElementsAre(0, 2, 3, 3));
  EXPECT_THAT(items.read<int32_t>("first_level_category_id"), ElementsAre(8, -124, -124));

  ASSERT_TRUE(dataset.has_daily());
  const DailyFeatures daily = dataset.read_daily({"show_cnt", "video_duration", "play_progress"});
  EXPECT_THAT(daily.item, ElementsAre(1, 0, 1));  // every row, in source order
  EXPECT_THAT(daily.date, ElementsAre(20200705, 20200705, 20200705));
  EXPECT_THAT(daily.columns[0], ElementsAre(5, 6, 7));
  EXPECT_EQ(daily.columns[1][0], 5966);
  EXPECT_TRUE(std::isnan(daily.columns[1][1]));
  EXPECT_THAT(daily.columns[2], ElementsAre(.79986, .79986, .79986));
  const DailyTexts visible = dataset.read_daily_texts("visible_status");
  EXPECT_EQ(visible.item, daily.item);
  EXPECT_THAT(visible.code, ElementsAre(0, 0, 0));
  EXPECT_THAT(visible.values, ElementsAre("public"));
  const Hdf5File daily_file = Hdf5File::open(options_.out / "daily.h5");
  EXPECT_THAT(daily_file.read<int32_t>("upload_type.codes"), ElementsAre(0, 0, 0));
  EXPECT_THAT(daily_file.read_strings("upload_type.values"), ElementsAre("ShortImport"));
  EXPECT_THAT(daily_file.read<double>("music_id"),
              ElementsAre(3350323409., 3350323409., 3350323409.));

  const Hdf5File users = Hdf5File::open(options_.out / "users.h5");
  EXPECT_THAT(users.read<int32_t>("user"), ElementsAre(1, 0));
  EXPECT_THAT(users.read<int32_t>("register_days"), ElementsAre(107, 107));
  EXPECT_TRUE(std::isnan(users.read<double>("onehot_feat4")[0]));
  EXPECT_THAT(users.read_strings("follow_user_num_range.values"), ElementsAre("(0,10]"));
  const Hdf5File social = Hdf5File::open(options_.out / "social.h5");
  EXPECT_THAT(social.read<int32_t>("user"), ElementsAre(1));
  EXPECT_THAT(social.read<int32_t>("friends"), ElementsAre(0));
  EXPECT_EQ(dataset.manifest()["tables"]["item_daily_features.csv"]["rows"], 3);
}

// As numbers, by dense index: user 1 and 2 are 0 and 1, video 10, 11 and 12 are 0, 1 and 2.
TEST_F(Import, ColumnsOfSideTables) {
  write_plain_tables();
  std::string full = user_row(1);
  full.replace(full.find("high_active"), 11, "full_active");
  write("user_features.csv", kUserFeaturesHeader + user_row(2) + full + user_row(7));
  write("item_categories.csv", "video_id,feat\n11,[8]\n10,\"[27, 9]\"\n12,[]\n");
  write("kuairec_caption_category.csv",
        kCaptionHeader + "10,a,b,[],8,looks,673,more,-124,UNKNOWN\n");
  std::string hidden = daily_row(11, "20200706", "1", 7),
              untold = daily_row(12, "20200706", "1", 7);
  hidden.replace(hidden.find("public"), 6, "private");
  untold.replace(untold.find("public"), 6, "");
  write("item_daily_features.csv",
        kDailyHeader + daily_row(11, "20200705", "5966.0", 5) + hidden + untold);
  write("social_network.csv", "user_id,friend_list\n7,\"[2, 1]\"\n1,[7]\n");
  const Dataset dataset = import();

  const auto users =
      dataset.read_user_columns({"user_active_degree", "onehot_feat4", "register_days"});
  EXPECT_THAT(users[0], ElementsAre(1, 0, 0)) << "by first appearance in the file";
  EXPECT_THAT(users[1], ElementsAre(IsNan(), IsNan(), IsNan()));
  EXPECT_THAT(users[2], ElementsAre(107, 107, 107));
  EXPECT_THAT(user_error_of([&] { dataset.read_user_columns({"age"}); }),
              HasSubstr("user_features.csv has no column age; choose another"));

  const CodeLists tags = dataset.read_tags();
  EXPECT_THAT(tags.offsets, ElementsAre(0, 2, 3, 3));
  EXPECT_THAT(tags.code, ElementsAre(27, 9, 8));

  const CodeLists categories = dataset.read_categories("second_level_category_id");
  EXPECT_THAT(categories.offsets, ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(categories.code, ElementsAre(673));
  EXPECT_THAT(dataset.read_categories("third_level_category_id").code, IsEmpty());
  EXPECT_THAT(user_error_of([&] { dataset.read_categories("level"); }),
              HasSubstr("kuairec_caption_category.csv has no column of ids level; choose another"));

  const DailyFeatures daily = dataset.read_daily({"visible_status", "author_id"});
  EXPECT_THAT(daily.columns[0], ElementsAre(0, 1, IsNan()));
  EXPECT_THAT(daily.columns[1], ElementsAre(3309, 3309, 3309));
  EXPECT_THAT(user_error_of([&] { dataset.read_daily({"loves"}); }),
              HasSubstr("item_daily_features.csv has no column loves; choose another"));

  const CodeLists friends = dataset.read_friends();
  EXPECT_THAT(friends.offsets, ElementsAre(0, 1, 1, 3));
  EXPECT_THAT(friends.code, ElementsAre(2, 1, 0));
}

TEST_F(Import, ColumnsNameTheAbsentTable) {
  write_plain_tables();
  const Dataset dataset = import();
  const auto expect_absent = [&](const char* table, auto&& read) {
    EXPECT_FALSE(dataset.has_table(table));
    EXPECT_THAT(user_error_of(read),
                AllOf(HasSubstr(std::string("was imported without ") + table),
                      HasSubstr("add that file to the source and import again, or use a "
                                "configuration that reads none of its columns")));
  };
  expect_absent("user_features.csv", [&] { dataset.read_user_columns({"register_days"}); });
  expect_absent("item_categories.csv", [&] { dataset.read_tags(); });
  expect_absent("kuairec_caption_category.csv",
                [&] { dataset.read_categories("first_level_category_id"); });
  expect_absent("social_network.csv", [&] { dataset.read_friends(); });
}

TEST_F(Import, ReadersNameTheAbsentTable) {
  write_plain_tables();
  const Dataset dataset = import();
  EXPECT_THAT(
      user_error_of([&] { dataset.read_daily({"show_cnt"}); }),
      AllOf(HasSubstr("without item_daily_features.csv"), HasSubstr("model.content: none")));
  EXPECT_THAT(
      user_error_of([&] { dataset.read_daily_texts("video_type"); }),
      AllOf(HasSubstr("without item_daily_features.csv"), HasSubstr("needs no video_type")));
  EXPECT_THAT(dataset.read_item_texts().caption, ElementsAre("", "", ""));
}

TEST_F(Import, TimestampsThatAreMissingAreToldOf) {
  write_plain_tables();
  write_big("1,10,500,1000,,,,0.5\n");
  const Dataset dataset = import();
  EXPECT_FALSE(dataset.has_timestamps());
  EXPECT_THAT(user_error_of([&] { dataset.read_timestamps(0); }), HasSubstr("timestamp"));
}

TEST_F(Import, AnyOtherTable) {
  write("ratings.tsv",
        "rating\tuser\tignored\tmovie\twhen\n"
        "4\tann\tx\tb 1\t100\n"
        "3.5\tbob\t\"a\ttab\"\ta\t101\n"
        "4\tann\tx\tb 1\t100\n"    // a duplicate
        "5\tann\tx\tb 1\t100\n");  // another label: none
  write("held.tsv", "user\tmovie\trating\twhen\nann\tc\t-1e0\t5\nzoe\ta\t2\t\n");
  options_.source = source() / "ratings.tsv";
  options_.test = source() / "held.tsv";
  options_.map = parse_column_map("user=user,item=movie,label=rating,time=when");
  options_.dialect.delimiter = parse_delimiter("\\t");
  const Dataset dataset = import();
  EXPECT_EQ(dataset.manifest()["kind"], "map");
  EXPECT_EQ(dataset.manifest()["label"], "rating");
  EXPECT_THAT(training_rows(dataset),
              ElementsAre(PlainRow{"ann", "b 1", 4.f, 0}, PlainRow{"bob", "a", 3.5f, 1},
                          PlainRow{"ann", "b 1", 5.f, 3}));
  const IdTables ids = dataset.read_ids();
  EXPECT_THAT(ids.user_id, ElementsAre("ann", "bob", "zoe"));
  EXPECT_THAT(ids.item_id, ElementsAre("a", "b 1", "c"));
  EXPECT_EQ(report_.duplicates, 1);
  EXPECT_EQ(report_.test_only_users, 1);
  EXPECT_EQ(report_.test_only_items, 1);
  const TestTable test = dataset.read_test();
  EXPECT_THAT(test.users, ElementsAre(0, 2));
  EXPECT_THAT(test.label, ElementsAre(-1, 2));
  EXPECT_TRUE(test.video_duration.empty());
  EXPECT_THAT(dataset.read_timestamps(0), ElementsAre(100, 100));
}

TEST_F(Import, AnotherTableWithoutTimeOrTest) {
  write("t.csv", "u,i,y\n2,x,1\n10,y,0\n2,x,1\n");
  options_.source = source() / "t.csv";
  options_.map = parse_column_map("user=u,item=i,label=y");
  const Dataset dataset = import();
  EXPECT_EQ(dataset.train_rows(), 3);  // without a time nothing is a duplicate
  EXPECT_THAT(dataset.read_ids().user_id, ElementsAre("2", "10"));
  EXPECT_EQ(dataset.test_rows(), 0);
  EXPECT_THAT(user_error_of([&] { dataset.read_test(); }), HasSubstr("--test"));
}

TEST_F(Import, IdsWithLeadingZerosAreTexts) {
  write("t.csv", "u,i,y\n7,x,1\n007,y,0\n");
  options_.source = source() / "t.csv";
  options_.map = parse_column_map("user=u,item=i,label=y");
  EXPECT_THAT(import().read_ids().user_id, ElementsAre("007", "7"));
}

TEST_F(Import, OtherTablesMayShareRowsWithTheirTestAndSaySo) {
  write("t.csv", "u,i,y\n1,1,1\n1,2,1\n");
  write("held.csv", "u,i,y\n1,2,0\n");
  options_.source = source() / "t.csv";
  options_.test = source() / "held.csv";
  options_.map = parse_column_map("user=u,item=i,label=y");
  EXPECT_EQ(import().train_rows(), 2);
  EXPECT_EQ(report_.rows_in_test, 1);
}

TEST_F(Import, AMappedTestTableNeedsNoTimes) {
  write("seen.csv", "u,i,y,t\n1,2,1,100\n1,3,0,200\n");
  write("held.csv", "u,i,y\n1,4,0.5\n");
  options_.source = source() / "seen.csv";
  options_.test = source() / "held.csv";
  // The training table does need them: a name that is not there is a slip.
  options_.map = parse_column_map("user=u,item=i,label=y,time=when");
  EXPECT_THAT(import_error(), HasSubstr("when"));
  options_.map = parse_column_map("user=u,item=i,label=y,time=t");
  const Dataset dataset = import();
  EXPECT_TRUE(dataset.has_timestamps());
  EXPECT_THAT(dataset.read_test().label, ElementsAre(.5));
}

// What is wrong with a training table, and what its message has to say.
struct Malformed {
  const char* name;
  std::string table;
  std::vector<std::string> says;
  const char* reason;  // with --skip-malformed; empty: refused all the same
};
void PrintTo(const Malformed& malformed, std::ostream* out) { *out << malformed.name; }

class MalformedTable : public SmallSource, public ::testing::WithParamInterface<Malformed> {
 protected:
  void write_all() const {
    write_plain_tables();
    write("user_features.csv", kUserFeaturesHeader + user_row(1) + user_row(2));
    write("item_categories.csv", "video_id,feat\n10,[1]\n11,[1]\n12,[1]\n");
    write("big_matrix.csv", GetParam().table);
  }
};

TEST_P(MalformedTable, EndsTheImport) {
  write_all();
  const std::string message = import_error();
  for (const std::string& text : GetParam().says) EXPECT_THAT(message, HasSubstr(text));
  EXPECT_THAT(message, HasSubstr("big_matrix.csv"));
}

TEST_P(MalformedTable, IsCountedWhenSkipped) {
  write_all();
  options_.on_fault = OnFault::kSkip;
  if (*GetParam().reason == '\0') {
    import_error();
    return;
  }
  const Dataset dataset = import();
  const auto counts = report_.malformed.at("big_matrix.csv");
  EXPECT_EQ(counts.at(GetParam().reason), 1);
  EXPECT_EQ(counts.size(), 1u);
  EXPECT_EQ(report_.rows_read, report_.rows + 1);
  EXPECT_EQ(dataset.manifest()["dropped"]["malformed"]["big_matrix.csv"][GetParam().reason], 1);
}

const std::string kGood = "1,10,500,1000,,,,0.5\n";
std::string with_row(const std::string& row) { return kInteractionHeader + kGood + row + kGood; }

INSTANTIATE_TEST_SUITE_P(
    Import, MalformedTable,
    ::testing::Values(
        Malformed{"missing_column",
                  "user_id,video_id,play_duration,video_duration,time,date,timestamp\n1,1,1,1,,,\n",
                  {":1: ", "no column \"watch_ratio\"", "user_id, video_id, play_duration"},
                  ""},
        Malformed{
            "unknown_column",
            "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio,x\n",
            {":1: ", "unknown column \"x\"", "remove it"},
            ""},
        Malformed{"empty_file", "", {"is empty", "give a complete file"}, ""},
        Malformed{"header_only", kInteractionHeader, {"no rows", "give a complete file"}, ""},
        Malformed{"header_alone", "user_id", {":1: ", "no column \"video_id\""}, ""},
        Malformed{"too_few_fields",
                  with_row("1,10,500\n"),
                  {":3: ", "3 fields, expected 8", "mend it", "--skip-malformed"},
                  "wrong_field_count"},
        Malformed{"too_many_fields",
                  with_row("1,10,500,1000,,,,0.5,9\n"),
                  {":3: ", "9 fields, expected 8"},
                  "wrong_field_count"},
        Malformed{"empty_line", with_row("\n"), {":3: ", "expected 8"}, "wrong_field_count"},
        Malformed{"non_numeric",
                  with_row("1,10,abc,1000,,,,0.5\n"),
                  {":3: ", "play_duration is \"abc\"", "expected a whole number"},
                  "not_a_number"},
        Malformed{"non_numeric_id",
                  with_row("1,1x,500,1000,,,,0.5\n"),
                  {":3: ", "video_id is \"1x\"", "expected a whole number"},
                  "not_a_number"},
        Malformed{"fractional_id",
                  with_row("1.0,10,500,1000,,,,0.5\n"),
                  {":3: ", "user_id is \"1.0\""},
                  "not_a_number"},
        Malformed{"empty_id",
                  with_row(",10,500,1000,,,,0.5\n"),
                  {":3: ", "user_id is empty"},
                  "empty_id"},
        Malformed{"negative_id",
                  with_row("-1,10,500,1000,,,,0.5\n"),
                  {":3: ", "user_id is -1", "0 or more"},
                  "negative"},
        Malformed{"unknown_user",
                  with_row("3,10,500,1000,,,,0.5\n"),
                  {":3: ", "user_id is 3", "user_features.csv does not list"},
                  "unknown_id"},
        Malformed{"unknown_item",
                  with_row("1,99,500,1000,,,,0.5\n"),
                  {":3: ", "video_id is 99", "item_categories.csv does not list"},
                  "unknown_id"},
        Malformed{"id_overflow",
                  with_row("99999999999,10,500,1000,,,,0.5\n"),
                  {":3: ", "user_id", "2147483647"},
                  "not_a_number"},
        Malformed{"integer_overflow",
                  with_row("1,10,99999999999999999999,1000,,,,0.5\n"),
                  {":3: ", "play_duration", "2147483647"},
                  "not_a_number"},
        Malformed{"negative_play",
                  with_row("1,10,-5,1000,,,,0.5\n"),
                  {":3: ", "play_duration is -5", "0 or more"},
                  "negative"},
        Malformed{"zero_duration",
                  with_row("1,10,5,0,,,,0.5\n"),
                  {":3: ", "video_duration is 0", "more than 0"},
                  "bad_video_duration"},
        Malformed{"ratio_inf",
                  with_row("1,10,500,1000,,,,inf\n"),
                  {":3: ", "watch_ratio is \"inf\"", "finite"},
                  "bad_label"},
        Malformed{"ratio_nan",
                  with_row("1,10,500,1000,,,,nan\n"),
                  {":3: ", "watch_ratio is \"nan\"", "finite"},
                  "bad_label"},
        Malformed{"ratio_negative",
                  with_row("1,10,500,1000,,,,-0.5\n"),
                  {":3: ", "watch_ratio is \"-0.5\"", "0 or more"},
                  "bad_label"},
        Malformed{"ratio_empty",
                  with_row("1,10,500,1000,,,,\n"),
                  {":3: ", "watch_ratio is \"\"", "expected a finite number"},
                  "not_a_number"},
        Malformed{"ratio_mismatch",
                  with_row("1,10,500,1000,,,,0.51\n"),
                  {":3: ", "watch_ratio is \"0.51\"", "500 / 1000 = 0.5"},
                  "ratio_mismatch"},
        Malformed{"half_a_time",
                  with_row("1,10,500,1000,,20200705,,0.5\n"),
                  {":3: ", "all three or none"},
                  "bad_time"},
        Malformed{"bad_date",
                  with_row("1,10,500,1000,t,20201305,1.5,0.5\n"),
                  {":3: ", "date is \"20201305\"", "yyyymmdd"},
                  "bad_time"},
        Malformed{"bad_timestamp",
                  with_row("1,10,500,1000,t,20201205,noon,0.5\n"),
                  {":3: ", "timestamp is \"noon\""},
                  "not_a_number"},
        Malformed{"truncated",
                  kInteractionHeader + kGood + "1,10,500,10",
                  {":3: ", "ends inside this line", "give the complete file"},
                  "truncated"},
        Malformed{"nul_byte",
                  with_row("1,10,5\0"s + "00,1000,,,,0.5\n"),
                  {":3: ", "NUL byte"},
                  "nul_byte"},
        Malformed{"text_after_quote",
                  with_row("\"1\"x,10,500,1000,,,,0.5\n"),
                  {":3: ", "after a closing quote"},
                  "bad_quote"},
        Malformed{"leak",
                  with_row("2,11,500,1000,,,,0.5\n"),
                  {":3: ", "user 2 and item 11", "test table too", "leak"},
                  "in_both_tables"}),
    [](const auto& malformed) { return std::string(malformed.param.name); });

TEST_F(Import, TheFirstFaultIsReportedWhateverTheThreads) {
  write_plain_tables();
  std::string rows;
  for (int i = 0; i < 600'000; ++i)
    rows += i % 100'000 == 99'999 ? "1,10,bad,1000,,,,0.5\n" : kGood;
  write_big(rows);
  options_.threads = 3;
  EXPECT_THAT(import_error(), HasSubstr("big_matrix.csv:100001: "));
}

TEST_F(Import, ARepeatedTestPairIsAnError) {
  write_plain_tables();
  write_small("1,12,300,400,,,,0.75\n2,11,100,400,,,,0.25\n1,12,200,400,,,,0.5\n");
  EXPECT_THAT(import_error(), AllOf(HasSubstr("small_matrix.csv:4: "),
                                    HasSubstr("user 1 and item 12"), HasSubstr("second time")));
  options_.on_fault = OnFault::kSkip;
  const TestTable test = import().read_test();
  EXPECT_THAT(test.label, ElementsAre(.75, .25));  // the first stays
  EXPECT_EQ(report_.malformed.at("small_matrix.csv").at("repeated"), 1);
}

TEST_F(Import, FaultsOfSideTables) {
  write_plain_tables();
  const auto message_with = [&](const std::string& name, const std::string& text) {
    write(name, text);
    const std::string message = import_error();
    std::filesystem::remove(source() / name);
    EXPECT_THAT(message, HasSubstr(name));
    return message;
  };
  EXPECT_THAT(message_with("user_features.csv",
                           kUserFeaturesHeader + user_row(1) + user_row(2) + user_row(1)),
              AllOf(HasSubstr(":4: "), HasSubstr("second time")));
  EXPECT_THAT(message_with("user_features.csv", ""), HasSubstr("is empty"));
  EXPECT_THAT(message_with("user_features.csv", kUserFeaturesHeader), HasSubstr("no rows"));
  EXPECT_THAT(message_with("user_features.csv", kUserFeaturesHeader + "1,a\n"),
              AllOf(HasSubstr(":2: "), HasSubstr("2 fields, expected 31")));
  EXPECT_THAT(message_with("item_categories.csv", "video_id,feat\n10,8\n11,[1]\n12,[1]\n"),
              AllOf(HasSubstr(":2: "), HasSubstr("feat is \"8\""), HasSubstr("[27, 9]")))
      << "a list without brackets";
  EXPECT_THAT(message_with("item_categories.csv", "video_id,feat\n-4,[8]\n"),
              AllOf(HasSubstr(":2: "), HasSubstr("video_id is -4")));
  EXPECT_THAT(
      message_with("kuairec_caption_category.csv", kCaptionHeader + "10,a,\"open,[],8,x,1,y,1,z\n"),
      AllOf(HasSubstr(":2: "), HasSubstr("quote that is never closed")));
  EXPECT_THAT(
      message_with("kuairec_caption_category.csv", kCaptionHeader + "10,a,b,[],x,x,1,y,1,z\n"),
      AllOf(HasSubstr(":2: "), HasSubstr("first_level_category_id is \"x\"")));
  EXPECT_THAT(
      message_with("item_daily_features.csv", kDailyHeader + daily_row(10, "20200705", "1", 1) +
                                                  daily_row(10, "0705", "1", 1)),
      AllOf(HasSubstr(":3: "), HasSubstr("date is \"0705\"")));
  EXPECT_THAT(
      message_with("item_daily_features.csv", kDailyHeader + daily_row(10, "20200705", "long", 1)),
      AllOf(HasSubstr(":2: "), HasSubstr("video_duration is \"long\"")));
  EXPECT_THAT(message_with("social_network.csv", "user_id,friend_list\n1,[2"),
              AllOf(HasSubstr(":2: "), HasSubstr("friend_list is \"[2\"")));
}

TEST_F(Import, SkippedRowsOfSideTablesAreCounted) {
  write_plain_tables();
  write("item_daily_features.csv",
        kDailyHeader + daily_row(10, "20200705", "1", 1) + daily_row(10, "20200705", "long", 1));
  options_.on_fault = OnFault::kSkip;
  EXPECT_THAT(import().read_daily({"show_cnt"}).item, ElementsAre(0));
  EXPECT_EQ(report_.malformed.at("item_daily_features.csv").at("not_a_number"), 1);
}

TEST_F(Import, NothingWellFormedIsAnError) {
  write_plain_tables();
  write_big("1,10,x,1000,,,,0.5\n");
  options_.on_fault = OnFault::kSkip;
  EXPECT_THAT(import_error(), HasSubstr("no well-formed row"));
}

TEST_F(Import, SourcesThatAreNotThere) {
  EXPECT_THAT(import_error(), AllOf(HasSubstr("big_matrix.csv: no such file"), HasSubstr("--map")));
  options_.source = root_ / "nowhere";
  EXPECT_THAT(import_error(), HasSubstr("no such folder"));
  options_.map = parse_column_map("user=u,item=i,label=y");
  EXPECT_THAT(import_error(), HasSubstr("nowhere: cannot read it"));
}

TEST_F(Import, AnExistingTargetIsLeftAlone) {
  write_plain_tables();
  std::filesystem::create_directory(options_.out);
  EXPECT_THAT(user_error_of([&] { import_dataset(options_); }),
              AllOf(HasSubstr("exists already"), HasSubstr("remove it first")));
  EXPECT_TRUE(std::filesystem::is_empty(options_.out));
}

TEST_F(Import, ShardsAreAPowerOfTwo) {
  write_plain_tables();
  for (const int64_t shards : {0, 3, -4, 8192}) {
    options_.shards = shards;
    EXPECT_THAT(import_error(), AllOf(HasSubstr("--shards: got " + std::to_string(shards)),
                                      HasSubstr("power of two")));
  }
}

TEST_F(Import, AFullDiskLeavesNothing) {
  std::string rows;
  for (int i = 0; i < 5000; ++i) rows += fmt::format("1,{},500,1000,,,,0.5\n", i);
  write_big(rows);
  write_small("1,6000,300,400,,,,0.75\n");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  std::vector<std::string> messages;
  for (const rlim_t limit : {rlim_t{0}, rlim_t{1000}, rlim_t{20'000}, rlim_t{80'000}}) {
    const rlimit small{limit, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    messages.push_back(import_error());
    setrlimit(RLIMIT_FSIZE, &before);
  }
  for (const std::string& message : messages)
    EXPECT_THAT(message, AllOf(HasSubstr("cannot write it"), HasSubstr("free space")));
  EXPECT_THAT(messages[1], HasSubstr("test.h5"));
  EXPECT_THAT(messages[3], HasSubstr("shard-0000.h5"));
  EXPECT_EQ(import().train_rows(), 5000);
}

TEST(ImportArguments, ColumnMap) {
  const ColumnMap map = parse_column_map("label=r,user=the user,item=i");
  EXPECT_EQ(map.user, "the user");
  EXPECT_EQ(map.item, "i");
  EXPECT_EQ(map.label, "r");
  EXPECT_EQ(map.time, "");
  for (const char* text :
       {"", "user=u,item=i", "user=u,item=i,label=", "user=u,user=v,item=i,label=y",
        "user=u,item=i,label=y,rating=z", "user"})
    EXPECT_THAT(user_error_of([&] { parse_column_map(text); }),
                AllOf(HasSubstr("--map: "), HasSubstr("expected user=COL,item=COL,label=COL")))
        << text;
}

TEST(ImportArguments, Delimiter) {
  EXPECT_EQ(parse_delimiter(";"), ";");
  EXPECT_EQ(parse_delimiter("\\t"), "\t");
  EXPECT_EQ(parse_delimiter("tab"), "\t");
  EXPECT_EQ(parse_delimiter("::"), "::");
  for (const char* text : {"", "a\"", "\"", "\n", ",\r"})
    EXPECT_THAT(user_error_of([&] { parse_delimiter(text); }), HasSubstr("--delimiter: got"));
}

}  // namespace
}  // namespace kt
