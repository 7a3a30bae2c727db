// Tables as people have them: any line end, quoting, layout; and text that is none.
#include <cmath>

#include "io/dataset/import.h"
#include "tests/io/small_source.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ImportText : public SmallSource {
 protected:
  /// A table of the columns user, item, label, text.
  void write_table(const std::string& rows) {
    write("t.csv", "user,item,label,text\n" + rows);
    options_.source = source() / "t.csv";
    options_.map = parse_column_map("user=user,item=item,label=label");
  }
};

TEST_F(ImportText, NewlinesInQuotesAreText) {
  write_table(
      "u1,i2,5,\"nice\nbook\"\n"
      "u2,i2,4,fine\n"
      "u2,i3,4,\"bad:\n9,9,1,as they say\"\n"
      "u3,i2,1,5\" disk\n");
  EXPECT_THAT(training_rows(import()),
              ElementsAre(PlainRow{"u1", "i2", 5, 0}, PlainRow{"u2", "i2", 4, 2},
                          PlainRow{"u2", "i3", 4, 3}, PlainRow{"u3", "i2", 1, 5}));
  EXPECT_EQ(report_.rows_read, 4);
}

TEST_F(ImportText, AMalformedRecordIsSkippedToItsEnd) {
  write_table(
      "u1,i2,5,x\n"
      "u2,i3,much,\"bad:\n9,9,1,as they say\"\n"
      "u2,i2,4,\"two\nlines\"\n"
      "u3,i3,2\n");
  EXPECT_THAT(import_error(), HasSubstr("t.csv:3: label is \"much\""));
  options_.on_fault = OnFault::kSkip;
  EXPECT_THAT(training_rows(import()),
              ElementsAre(PlainRow{"u1", "i2", 5, 0}, PlainRow{"u2", "i2", 4, 3}));
  EXPECT_EQ(report_.rows_read, 4);
  EXPECT_EQ(report_.malformed.at("t.csv").at("not_a_number"), 1);
  EXPECT_EQ(report_.malformed.at("t.csv").at("wrong_field_count"), 1);
}

TEST_F(ImportText, LinesOfLaterFaultsCountThoseInQuotes) {
  write_table("u1,i1,5,x\n");
  write("held.csv",
        "user,item,\"la\nbel\",label\n"
        "u1,i2,\"a\n\nb\",1\n"
        "u1,i3,x,1\n"
        "u1,i2,x,1\n");
  options_.test = source() / "held.csv";
  EXPECT_THAT(import_error(),
              HasSubstr("held.csv:7: the pair of user u1 and item i2 a second time"));
}

TEST_F(ImportText, AQuoteThatIsNeverClosedIsAnErrorAlways) {
  write_table("u1,i2,5,x\nu2,i3,4,\"open\nu3,i3,4,x\n");
  for (const OnFault on_fault : {OnFault::kStop, OnFault::kSkip}) {
    options_.on_fault = on_fault;
    EXPECT_THAT(import_error(), AllOf(HasSubstr("t.csv:3: a quote that is never closed"),
                                      HasSubstr("--quote none"), Not(HasSubstr("skip-malformed"))));
  }
  options_.dialect.quotes = Quotes::kNone;
  EXPECT_EQ(import().train_rows(), 3);
}

TEST_F(ImportText, LastLinesOfAnyKind) {
  const std::string user_header = "user_id,friend_list\n";
  for (const std::string end : {"\n", "", "\n\n", "\r\n", "\r\n\r\n", "\n\r\n\n"}) {
    write_big("1,10,500,1000,,,,0.5\n2,11,250,1000,,,,0.25" + end);
    write_small("1,12,300,400,,,,0.75" + end);
    write("social_network.csv", user_header + "2,[1]" + end);
    const Dataset dataset = import();
    EXPECT_EQ(training_rows(dataset).size(), 2u);
    EXPECT_EQ(dataset.test_rows(), 1);
    EXPECT_EQ(dataset.manifest()["tables"]["social_network.csv"]["rows"], 1);
    std::filesystem::remove_all(options_.out);
  }
  write("social_network.csv", user_header + "1,[2]\n2");
  EXPECT_THAT(import_error(), HasSubstr("social_network.csv:3: 1 fields, expected 2"));
}

TEST_F(ImportText, OnlyLastLinesMayBeEmpty) {
  write_table("u1,i1,5,x\n\nu2,i1,4,x\n");
  EXPECT_THAT(import_error(), HasSubstr("t.csv:3: 1 fields, expected 4"));
}

TEST_F(ImportText, IdsThatAreNotUtf8AreRefused) {
  write_table("u1,i1,5,x\nu1,fr\xe8re,5,x\nu1,fr\xe9re,5,x\nu2,\xe4\xbd\xa0,4,\xe4\n");
  EXPECT_THAT(import_error(), AllOf(HasSubstr("t.csv:3: item is \"fr\\xe8re\", which is not UTF-8"),
                                    HasSubstr("iconv -f LATIN1 -t UTF-8")));
  options_.on_fault = OnFault::kSkip;
  EXPECT_THAT(import().read_ids().item_id, ElementsAre("i1", "\xe4\xbd\xa0"));
  EXPECT_EQ(report_.malformed.at("t.csv").at("not_utf8"), 2);
}

TEST_F(ImportText, TextsOfSideTablesThatAreNotUtf8AreRefused) {
  write_plain_tables();
  const std::string header =
      "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,"
      "first_level_category_name,second_level_category_id,second_level_category_name,"
      "third_level_category_id,third_level_category_name\n";
  write("kuairec_caption_category.csv",
        header + "10,a,b,[],1,x,1,y,1,z\n" + "11,a,\xc4\xe3\xba\xc3,[],1,x,1,y,1,z\n");
  EXPECT_THAT(
      import_error(),
      AllOf(HasSubstr("kuairec_caption_category.csv:3: caption is \"\\xc4\\xe3\\xba\\xc3\""),
            HasSubstr("-f GBK")));
  options_.on_fault = OnFault::kSkip;
  EXPECT_THAT(import().read_item_texts().caption, ElementsAre("b", "", ""));
}

TEST_F(ImportText, ANameOfAFileThatIsNotUtf8IsEscaped) {
  write_table("u1,i1,5,x\nu1,i2,x,x\n");
  std::filesystem::rename(source() / "t.csv", source() / "t\xe4.csv");
  options_.source = source() / "t\xe4.csv";
  options_.on_fault = OnFault::kSkip;
  const nlohmann::json manifest = import().manifest();
  EXPECT_EQ(manifest["source"][0]["name"], "t\\xe4.csv");
  EXPECT_EQ(manifest["dropped"]["malformed"]["t\\xe4.csv"]["not_a_number"], 1);
}

TEST_F(ImportText, WithoutHeaderAndWithADelimiterOfTwo) {
  write("ratings.dat", "1::1193::5::978300760\n1::661::3::2000-12-31 22:13:22\n2::1193::4::");
  write("held.dat", "2::661::3\n");
  options_.source = source() / "ratings.dat";
  options_.test = source() / "held.dat";
  options_.dialect.delimiter = parse_delimiter("::");
  options_.dialect.header = Header::kNone;
  options_.map = parse_column_map("user=1,item=2,label=3,time=4", Header::kNone);
  const Dataset dataset = import();
  EXPECT_THAT(training_rows(dataset),
              ElementsAre(PlainRow{"1", "1193", 5, 0}, PlainRow{"1", "661", 3, 1},
                          PlainRow{"2", "1193", 4, 2}));
  EXPECT_EQ(dataset.test_rows(), 1);
  std::filesystem::remove_all(options_.out);
  write("ratings.dat", "1::1193::5::978300760\n1::661::x::978302109\n");
  EXPECT_THAT(import_error(),
              HasSubstr("ratings.dat:2: column 3 is \"x\", expected a finite number"));
  options_.map = parse_column_map("user=1,item=2,label=5", Header::kNone);
  EXPECT_THAT(import_error(), HasSubstr("no column \"column 5\"; the columns found are column 1"));
  for (const char* text : {"user=1,item=2,label=stars", "user=0,item=1,label=2",
                           "user=-1,item=1,label=2", "user=1.5,item=1,label=2"})
    EXPECT_THAT(user_error_of([&] { parse_column_map(text, Header::kNone); }),
                HasSubstr("numbers of columns from 1"));
}

TEST_F(ImportText, TimesMayBeIso) {
  write("t.csv",
        "u,i,y,t\n1,1,1,2020-07-05T20:30:11+08:00\n1,2,1,2020-07-05 12:30:11.5\n1,3,1,2\n");
  options_.source = source() / "t.csv";
  options_.map = parse_column_map("user=u,item=i,label=y,time=t");
  options_.shards = 1;
  EXPECT_THAT(import().read_timestamps(0), ElementsAre(1593952211, 1593952211.5, 2));
  std::filesystem::remove_all(options_.out);
  write("t.csv", "u,i,y,t\n1,1,1,2021-02-29\n");
  EXPECT_THAT(import_error(), AllOf(HasSubstr("t.csv:2: t is \"2021-02-29\""),
                                    HasSubstr("a time as 2020-07-05 12:30:11")));
}

TEST_F(ImportText, DaysThatDoNotExistAreMalformed) {
  write_plain_tables();
  write_big("1,10,500,1000,2020-02-31 00:00:00,20200231,1583020800,0.5\n");
  EXPECT_THAT(import_error(), AllOf(HasSubstr("big_matrix.csv:2: date is \"20200231\""),
                                    HasSubstr("a day as yyyymmdd")));
}

TEST_F(ImportText, IdsThatAreSpeltInAnotherWayAreToldOf) {
  write_table("1,10,5,x\n2,10,5,x\n3,11,5,x\n");
  write("held.csv", "user,item,label\n1.0,10,5\n2.0,10,5\n");
  options_.test = source() / "held.csv";
  import();
  EXPECT_EQ(report_.test_users, 2);
  EXPECT_EQ(report_.test_only_users, 2);
  ASSERT_TRUE(report_.foreign_users.has_value());
  EXPECT_EQ(*report_.foreign_users, std::pair(std::string("1.0"), std::string("1")));
  EXPECT_FALSE(report_.foreign_items.has_value());
  std::filesystem::remove_all(options_.out);
  write("held.csv", "user,item,label\n1,10,5\n2,10,5\n7,10,1\n");
  import();
  EXPECT_FALSE(report_.foreign_users.has_value());
}

}  // namespace
}  // namespace kt
