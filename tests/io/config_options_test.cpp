// Options of the models: keys that a declaration makes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/config/reader.h"
#include "io/config/writers.h"
#include "launch/base/errors.h"
#include "tests/support/declared_models.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

ConfigReading read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return read_config(text, "toy.yaml", overrides, declared_models());
}
std::vector<std::string> faults(const std::string& text,
                                const std::vector<std::string>& overrides = {}) {
  return read(text, overrides).faults;
}
/// The one fault of an option of `tower`.
std::string fault(const std::string& option) {
  const std::vector<std::string> all = faults("", {"model.name=tower", option});
  EXPECT_THAT(all, SizeIs(1)) << option;
  return all.empty() ? "" : all[0];
}

constexpr const char* kTower = R"(
model:
  hidden: [8, 8, 4]
  target: {high: 2.5}
  name: tower
  loss: bce
  bias: false
  dropout: 0
  embedding: 3
)";

TEST(ConfigOptions, AreReadWhereverTheNameOfTheModelStands) {
  const ConfigReading reading = read(kTower, {"model.embedding=4", "model.target.high=3"});
  ASSERT_THAT(reading.faults, IsEmpty());
  const OptionValues& options = reading.config.model.options;
  EXPECT_EQ(options.whole("embedding"), 4);
  EXPECT_THAT(options.list("hidden"), ElementsAre(8, 8, 4));
  EXPECT_EQ(options.number("dropout"), 0);
  EXPECT_EQ(options.word("loss"), "bce");
  EXPECT_FALSE(options.flag("bias"));
  EXPECT_EQ(options.number("target.low"), -1);
  EXPECT_EQ(options.number("target.high"), 3);
  const ConfigReading named_last = read("", {"model.dropout=.1", "model.name=shallow"});
  ASSERT_THAT(named_last.faults, IsEmpty());
  EXPECT_EQ(named_last.config.model.options.number("dropout"), .1);
}

TEST(ConfigOptions, ThoseLeftOutHaveTheDefaultsOfTheirModel) {
  EXPECT_EQ(read("", {"model.name=tower"}).config.model.options.number("dropout"), .2);
  EXPECT_EQ(read("", {"model.name=shallow"}).config.model.options.number("dropout"), .5);
  EXPECT_THAT(read("").config.model.options.all, IsEmpty());
}

TEST(ConfigOptions, AskingForWhatIsNotDeclaredIsABug) {
  const OptionValues options = read("", {"model.name=tower"}).config.model.options;
  EXPECT_THROW(options.whole("width"), BugError);
  EXPECT_THROW(options.whole("dropout"), BugError);
  EXPECT_THROW(options.number("embedding"), BugError);
  EXPECT_THROW(OptionValues().flag("bias"), BugError);
}

TEST(ConfigOptions, ValuesAreOfTheirKindAndRange) {
  EXPECT_EQ(fault("model.embedding=513"),
            "command line: model.embedding=513: model.embedding: got 513, expected a whole number "
            ">= 1 and <= 512");
  EXPECT_THAT(fault("model.embedding=1.5"), HasSubstr("expected a whole number"));
  EXPECT_THAT(fault("model.dropout=1"), HasSubstr("got 1, expected a number >= 0 and < 1"));
  EXPECT_THAT(fault("model.loss=mae"), HasSubstr("got mae, expected mse or bce"));
  for (const char* flag : {"1", "yes", "True", "'true'", "~", "[true]"})
    EXPECT_THAT(fault(std::string("model.bias=") + flag), HasSubstr("expected true or false"));
  for (const char* list : {"64", "[0]", "[64, 5000]", "[1.5]", "[a]", "[[1]]"})
    EXPECT_THAT(fault(std::string("model.hidden=") + list),
                HasSubstr("expected a list of at most 100 whole numbers, each >= 1 and <= 4096, as "
                          "[64, 32]"));
  EXPECT_THAT(fault("model.target=1"), HasSubstr("model.target is a section"));
  EXPECT_THAT(fault("model.hiden=[1]"), HasSubstr("nearest is model.hidden"));
  EXPECT_THAT(read("", {"model.name=tower", "model.hidden=[]"}).config.model.options.list("hidden"),
              IsEmpty());
  EXPECT_THAT(faults("model:\n  name: tower\n  embedding: 0\n"),
              ElementsAre(StartsWith("toy.yaml:3: model.embedding: got 0")));
}

TEST(ConfigOptions, AnOptionOfAnotherModelNamesThoseThatHaveIt) {
  EXPECT_THAT(
      faults("model:\n  dropout: .1\n"),
      ElementsAre("toy.yaml:2: model.dropout: got an option of tower and shallow, expected none "
                  "with model.name=ncf; leave it out, or set model.name to a model "
                  "that has it"));
  EXPECT_THAT(
      faults("model:\n  target:\n    low: 1\n", {"model.bias=true", "model.name=shallow"}),
      ElementsAre(
          "toy.yaml:3: model.target.low: got an option of tower, expected model.dropout with "
          "model.name=shallow; leave it out, or set model.name to a model "
          "that has it",
          AllOf(StartsWith("command line: model.bias=true: model.bias: got an option of tower"))));
}

TEST(ConfigOptions, AnUnknownModelIsTheOnlyFault) {
  EXPECT_THAT(faults("model: {name: tovver, hidden: [1], target: {low: 0}}\n"),
              ElementsAre(HasSubstr("model.name: got tovver, expected ncf or tower or shallow")));
  EXPECT_THAT(faults("", {"model.dropout=.1", "model.name=[tower"}), SizeIs(1));
}

TEST(ConfigOptions, EffectiveConfigurationReadsBackEqual) {
  const ConfigReading first = read(kTower, {"model.dropout=0.30000000000000004"});
  ASSERT_THAT(first.faults, IsEmpty());
  const std::string text = to_yaml(first.config);
  EXPECT_THAT(text, HasSubstr("  hidden: [8, 8, 4]\n  dropout: 0.30000000000000004\n  loss: bce\n"
                              "  bias: false\n  target:\n    low: -1\n    high: 2.5\ntrain:\n"));
  const ConfigReading second = read(text);
  ASSERT_THAT(second.faults, IsEmpty()) << text;
  EXPECT_EQ(to_json(second.config), to_json(first.config));
  EXPECT_EQ(to_json(first.config)["model"]["target"]["high"], 2.5);
  EXPECT_THAT(to_yaml(read("").config), Not(HasSubstr("hidden")));
}

TEST(ConfigOptions, AreSettingsOfAllRanks) {
  const auto settings = [](const std::string& option) {
    return settings_of_all_ranks(read("", {"model.name=tower", option}).config);
  };
  EXPECT_EQ(settings("model.bias=true"), settings("model.embedding=16"));
  EXPECT_NE(settings("model.bias=false"), settings("model.embedding=16"));
}

TEST(ConfigOptions, AreDescribedByModel) {
  const std::string text = describe_keys(declared_models());
  EXPECT_THAT(text, HasSubstr("Options of the models:\n"
                              "  ncf: a model without options; no options\n"
                              "  tower: a model with options of every kind\n"
                              "  model.embedding: 16\n"
                              "      a whole number >= 1 and <= 512; width of the embeddings\n"));
  EXPECT_THAT(text, HasSubstr("  model.bias: true\n      true or false; a bias for every id\n"));
  EXPECT_THAT(text, HasSubstr("  shallow: a model that shares an option by name\n"
                              "  model.dropout: 0.5\n"));
}

}  // namespace
}  // namespace kt
