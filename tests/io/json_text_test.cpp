#include "io/files/json_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/files/files.h"
#include "io/run/checkpoint.h"
#include "tests/io/small_source.h"

namespace kt {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string nested(int levels) {
  return "{\"schema_version\":1,\"a\":" + std::string(levels, '[') + std::string(levels, ']') + "}";
}

TEST(JsonText, NestingHasALimit) {
  EXPECT_EQ(parse_json(nested(50)).at("schema_version"), 1);
  EXPECT_THROW(parse_json(nested(1'000'000)), json::exception);
  EXPECT_THROW(parse_json("{\"a\":"), json::exception);
}

TEST(JsonText, AWholeNumberIsNoOther) {
  EXPECT_EQ(whole_number(json::parse("9223372036854775807")), 9223372036854775807);
  EXPECT_EQ(whole_number(json::parse("-3")), -3);
  for (const char* other : {"9223372036854775808", "1.0", "1e300", "true", "\"1\"", "null", "[1]"})
    EXPECT_THROW(whole_number(json::parse(other)), json::exception) << other;
}

/// Manifests whose checksum is right, as another version may write them.
class Manifests : public SmallSource {
 protected:
  std::string dataset_error(const json& manifest) {
    const auto path = source() / "manifest.json";
    std::filesystem::remove(path);
    write_sealed_manifest(path, manifest);
    return user_error_of([&] { Dataset::open(source()); });
  }
  std::string checkpoint_error(const json& content) {
    const std::string text = content.dump();
    write("manifest.json",
          json{{"content", content}, {"xxh128", checksum(std::as_bytes(std::span(text)))}}.dump());
    return user_error_of([&] { Checkpoint::open(source()); });
  }
};

TEST_F(Manifests, DeepNestingIsDamage) {
  write("manifest.json", nested(1'000'000));
  EXPECT_THAT(user_error_of([&] { Dataset::open(source()); }), HasSubstr("is damaged"));
  EXPECT_THAT(user_error_of([&] { Checkpoint::open(source()); }), HasSubstr("is damaged"));
}

TEST_F(Manifests, OfADataSetHaveEveryKey) {
  write_plain_tables();
  const json whole = import().manifest();
  EXPECT_EQ(json::parse(read_all(options_.out / "manifest.json")).size(), whole.size() + 1);
  for (const char* key : {"users", "hash", "shards", "files", "train_label_mean"}) {
    json part = whole;
    part.erase(key);
    EXPECT_THAT(dataset_error(part), AllOf(HasSubstr(std::string("manifest.json: has no ") + key),
                                           HasSubstr("import the data set again")));
  }
  json other = whole;
  other["users"] = -1;
  EXPECT_THAT(dataset_error(other), HasSubstr("has no users as this program writes it"));
  other = whole;
  other["shards"][0]["rows"] = 1.5;
  EXPECT_THAT(dataset_error(other), HasSubstr("has no rows as this program writes it"));
  other = whole;
  other["files"].erase("ids.h5");
  std::filesystem::remove(source() / "manifest.json");
  write_sealed_manifest(source() / "manifest.json", other);
  EXPECT_THAT(user_error_of([&] { Dataset::open(source()).read_ids(); }),
              HasSubstr("manifest.json: lists no ids.h5"));
}

TEST_F(Manifests, OfACheckpointHaveWholeNumbers) {
  const json content = {
      {"schema_version", 1}, {"step", 4}, {"parts", json::array()}, {"state", {}}};
  for (const json& step : {json(1e300), json(4.5), json("4"), json(~uint64_t{0})}) {
    json other = content;
    other["step"] = step;
    EXPECT_THAT(checkpoint_error(other),
                AllOf(HasSubstr("is damaged"), HasSubstr("expected a whole number")));
  }
}

}  // namespace
}  // namespace kt
