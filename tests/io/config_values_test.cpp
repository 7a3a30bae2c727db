// A value is what the user wrote, or is refused.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "io/config/reader.h"
#include "io/config/writers.h"
#include "tests/support/declared_models.h"

namespace kt {
namespace {

using namespace std::string_literals;

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

ConfigReading read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return read_config(text, "toy.yaml", overrides, declared_models());
}
std::vector<std::string> faults(const std::string& text,
                                const std::vector<std::string>& overrides = {}) {
  return read(text, overrides).faults;
}
std::string fault(const std::string& override_text) {
  const std::vector<std::string> all = faults("", {override_text});
  EXPECT_THAT(all, SizeIs(1)) << override_text;
  return all.empty() ? "" : all[0];
}

TEST(ConfigValues, AKeyComesOnceHoweverItIsSpelt) {
  const std::string twice = "got it a second time, expected once; the first is in line ";
  EXPECT_THAT(faults("train.epochs: 3\ntrain:\n  epochs: 7\n"),
              ElementsAre("toy.yaml:3: train.epochs: " + twice + "1"));
  EXPECT_THAT(faults("train:\n  epochs: 7\n\ntrain.epochs: 7\n"),
              ElementsAre("toy.yaml:4: train.epochs: " + twice + "2"));
  EXPECT_THAT(faults("train:\n  optimizer.lr: .1\n  optimizer:\n    lr: .2\n"),
              ElementsAre("toy.yaml:4: train.optimizer.lr: " + twice + "2"));
  EXPECT_THAT(faults("train: {optimizer: {lr: .1}}\ntrain.optimizer: {beta1: .2}\n"),
              ElementsAre("toy.yaml:2: train.optimizer: " + twice + "1"));
  EXPECT_THAT(faults("\"train\": {}\ntrain: {seed: 2}\n"),
              ElementsAre("toy.yaml:2: train: " + twice + "1"));
  EXPECT_THAT(faults("run: &r {dir: a}\nlog: {<<: *r}\n"),
              ElementsAre(HasSubstr("got the unknown key log.<<")));
  const ConfigReading apart = read("train.epochs: 3\ntrain: {seed: 7, optimizer.lr: .5}\n");
  EXPECT_THAT(apart.faults, IsEmpty());
  EXPECT_EQ(apart.config.train.epochs, 3);
  EXPECT_EQ(apart.config.train.optimizer.lr, .5);
}

TEST(ConfigValues, NumbersOfAnotherSpellingAreRefused) {
  for (const char* text : {"1e3", "0x10", "+5", "1_000", "007", "010", "-0x1", "5.0", "5.", "5 #",
                           "5,", "'5'", "!!int 5", "99999999999999999999", "yes", "~", " 5"})
    EXPECT_THAT(fault(fmt::format("train.epochs={}", text)), HasSubstr("expected a whole number"))
        << text;
  for (const char* text : {"+.5", "0x1p-3", "00.5", "1e400", "1e-400", "nan", ".nan", "infinity",
                           "0,5", "1/2", "'.5'", "!!float .5", "5e"})
    EXPECT_THAT(fault(fmt::format("train.optimizer.lr={}", text)), HasSubstr("expected a number"))
        << text;
  const ConfigReading read_numbers = read("", {"train.epochs=5", "train.optimizer.lr=.5"});
  EXPECT_THAT(read_numbers.faults, IsEmpty());
  EXPECT_EQ(read("", {"train.optimizer.lr=5."}).config.train.optimizer.lr, 5);
}

/// What is accepted works, so what cannot is not.
TEST(ConfigValues, NumbersHaveBounds) {
  const std::string most = "9223372036854775807";
  for (const char* key :
       {"train.epochs", "train.max_steps", "train.global_batch", "train.schedule.warmup_steps",
        "train.schedule.steps", "train.early_stop.patience", "train.plateau.patience",
        "parallel.threads", "parallel.timeout_s", "evaluate.every", "checkpoint.every_steps",
        "checkpoint.every_seconds", "checkpoint.keep", "log.every_steps", "run.max_seconds"})
    EXPECT_THAT(fault(key + ("=" + most)), HasSubstr("got " + most + ", expected a whole number"));
  EXPECT_EQ(read("", {"train.seed=" + most}).config.train.seed, 9223372036854775807);
  EXPECT_THAT(fault("train.seed=-1"), HasSubstr(">= 0 and <= " + most));
  EXPECT_THAT(fault("evaluate.k=[20000000000]"), HasSubstr("each >= 1 and <= 1000000000"));
  std::string many = "evaluate.k=[1";
  for (int k = 2; k <= 101; ++k) many += fmt::format(",{}", k);
  EXPECT_THAT(fault(many + "]"), HasSubstr("at most 100"));
  // As floats these would be zero, infinite or one.
  for (const char* text :
       {"data.target.clip=1e-300", "data.target.clip=1e300", "train.clip_norm=1e-300",
        "train.weight_decay=1e39", "train.optimizer.lr=1e-60", "train.optimizer.lr=1e39",
        "train.optimizer.epsilon=1e-300", "train.optimizer.beta1=0.99999999999",
        "train.optimizer.beta2=0.99999999999"})
    EXPECT_THAT(fault(text), HasSubstr("expected ")) << text;
  EXPECT_THAT(faults("", {"data.target.clip=0", "train.clip_norm=0", "train.optimizer.lr=1e30"}),
              IsEmpty());
}

TEST(ConfigValues, LabelsAreNamesWithAMeaning) {
  for (const char* labels :
       {"[ratio>=4]", "[ratio>=-0.5, ratio>=.125, ratio>=1e-3]", "[ratio>=123456, ratio>=1.23456]",
        "[top-1, top-1000000000]", "[duration-p80]", "['ratio>=2', \"top-50\"]",
        "[ratio>=1, ratio>=2, ratio>=3, ratio>=4, ratio>=5, top-1, top-2, duration-p80]"})
    EXPECT_THAT(faults("", {fmt::format("evaluate.labels={}", labels)}), IsEmpty()) << labels;
  EXPECT_THAT(read("evaluate:\n  labels:\n    - top-5\n    - ratio>=2\n").config.evaluate.labels,
              ElementsAre("top-5", "ratio>=2"));
  for (const char* labels : {"[]",
                             "ratio>=2",
                             "[ratio>=1234567]",
                             "[ratio>=0.1234567]",
                             "[ratio>=]",
                             "[ratio>=nan]",
                             "[ratio>=1e999]",
                             "[ratio>= 1]",
                             "[ratio>2]",
                             "[Ratio>=2]",
                             "[top-0]",
                             "[top--1]",
                             "[top-1.5]",
                             "[top-1000000001]",
                             "[top-]",
                             "[duration-p90]",
                             "[graded5]",
                             "[[top-1]]",
                             "[{top-1: 2}]",
                             "[~]",
                             "[!!str top-1]",
                             "[top-50, top-50]",
                             "[ratio>=1, ratio>=1.0]",
                             "[ratio>=.5, ratio>=5e-1]",
                             "[top-1, top-2, top-3, top-4, top-5, top-6, top-7, top-8, top-9]"})
    EXPECT_THAT(fault(fmt::format("evaluate.labels={}", labels)),
                HasSubstr("expected a list of 1 to 8 different labels, each ratio>=X (X of at most "
                          "6 significant digits), top-N (N >= 1) or duration-p80"))
        << labels;
}

TEST(ConfigValues, AnOverrideIsTakenAsAWhole) {
  const auto cut = [](const std::string& value) {
    EXPECT_THAT(fault("run.dir=" + value), HasSubstr("got a value that YAML reads as")) << value;
  };
  cut("runs/a #2");
  cut("#2");
  cut(" runs/a");
  cut("runs/a ");
  cut("\"runs\" # a");
  cut("--- runs");
  cut("- runs");
  cut("&a");
  EXPECT_THAT(fault("run.dir=\"runs\" a"), HasSubstr("text that belongs to no key"));
  EXPECT_THAT(fault("train.seed=5\n---\n6"), HasSubstr("got"));
  EXPECT_THAT(fault("run.dir=a\nb"), HasSubstr("without control characters"));
  EXPECT_THAT(fault("run.dir=a\r"), HasSubstr("got \"a\\r\""));
  EXPECT_THAT(fault("run.dir=\"a\\0b\""), HasSubstr("got \"a\\u0000b\" in quotes"));
  EXPECT_THAT(fault("run.dir=caf\xe9"), HasSubstr("expected UTF-8 text"));
  EXPECT_THAT(fault("run.dir=~/runs"), HasSubstr("nor ~ for a home folder"));
  EXPECT_THAT(fault("data.path='~'"), HasSubstr("nor ~ for a home folder"));
  EXPECT_THAT(fault("run.dir=!!str a"), HasSubstr("with the tag"));
  EXPECT_THAT(fault("train.yaml"), HasSubstr("a configuration is named by --config train.yaml"));
  EXPECT_THAT(fault("run.dir=" + std::string(100'000, 'a')), HasSubstr("8192 bytes"));
  for (const char* value :
       {"\"runs/a #2\"", "'a: b'", "a#b", "1e3", "a  b", "=", "a=b", "no", "\"\"", "[a]b"}) {
    const ConfigReading reading = read("", {fmt::format("data.path={}", value)});
    if (std::string(value) == "[a]b") {
      EXPECT_THAT(reading.faults, SizeIs(1));
      continue;
    }
    std::string meant = value;
    if (meant.size() > 1 && (meant[0] == '"' || meant[0] == '\''))
      meant = meant.substr(1, meant.size() - 2);
    EXPECT_THAT(reading.faults, IsEmpty()) << value;
    EXPECT_EQ(reading.config.data.path, meant);
  }
}

TEST(ConfigValues, NoTextIsReadWithoutEnd) {
  for (const char* text : {",\n", ",", "a: 1\n,", "[,", "{,", "] ,", "- , -", "a\n,\n", ", a: b",
                           "\n  (\n\"a\", \"b\" )"})
    EXPECT_THAT(faults(text), SizeIs(1)) << text;
  EXPECT_THAT(faults(",\n"), ElementsAre(StartsWith("toy.yaml:1: got")));
  EXPECT_THAT(faults("train: {}\n---\n,"), SizeIs(1));
  std::string deep, bomb = "a0: &a0 [x]\n";
  for (int k = 0; k < 30'000; ++k) deep += "[";
  for (int k = 1; k < 60; ++k) bomb += fmt::format("a{}: &a{} [*a{}, *a{}]\n", k, k, k - 1, k - 1);
  EXPECT_THAT(faults(deep), SizeIs(1));
  EXPECT_THAT(faults(bomb), SizeIs(60));
  EXPECT_THAT(faults(std::string(1 << 20, '#')),
              ElementsAre(HasSubstr("more than the 65536 bytes")));
  EXPECT_THAT(read_config_file("/dev/zero", {}, declared_models()).faults, SizeIs(1));
}

TEST(ConfigValues, BytesThatAreNoTextHaveALine) {
  EXPECT_THAT(faults("train: {}\nrun: {dir: caf\xe9}\n"),
              ElementsAre(AllOf(StartsWith("toy.yaml:2: got"), HasSubstr("expected UTF-8 text"))));
  EXPECT_THAT(faults("run: {}\n\0"s), ElementsAre(StartsWith("toy.yaml:2: got")));
  EXPECT_THAT(faults("\xff\xfer\0u\0n\0"), ElementsAre(HasSubstr("expected UTF-8 text")));
  EXPECT_THAT(faults("\xef\xbb\xbftrain: {epochs: 2}\r\nrun: {dir: caf\xc3\xa9}\r\n"), IsEmpty());
}

/// Whatever is accepted, the effective configuration reads back to it.
TEST(ConfigValues, EveryAcceptedValueReadsBackEqual) {
  std::mt19937_64 random(1);
  const auto below = [&](uint64_t end) { return random() % end; };
  const std::vector<std::string> pieces = {
      "a",    "Z",    "0",   "1e3",  ".", "-",     "- ",      ":",           ": ",      " ",
      "#",    " #",   ",",   "[",    "]", "{",     "}",       "&",           "*",       "!",
      "|",    ">",    "'",   "\\\"", "%", "@",     "`",       "~",           "?",       "? ",
      "=",    "<<",   "é",   "日",   "😀", "no",    "\\\\",    "\\u0085",     "\\u2028", "\\ufeff",
      "null", "true", "---", "...",  "/", "\\xa0", "\\ue000", "\\U0001F600", "0x1"};
  int accepted = 0;
  for (int k = 0; k < 1500; ++k) {
    std::string quoted = "\"";
    for (uint64_t n = below(6) + 1; n > 0; --n) quoted += pieces[below(pieces.size())];
    const double lr = std::ldexp(1 + static_cast<double>(below(1 << 30)) / (1 << 30),
                                 static_cast<int>(below(200)) - 100);
    const ConfigReading first =
        read("", {"data.path=" + quoted + "\"", fmt::format("train.optimizer.lr={}", lr),
                  fmt::format("train.seed={}", random() >> 1),
                  fmt::format("train.max_steps={}", below(1'000'000'000'000'000))});
    if (!first.faults.empty()) continue;  // a home folder
    ++accepted;
    const std::string text = to_yaml(first.config);
    const ConfigReading second = read(text);
    ASSERT_THAT(second.faults, IsEmpty()) << text;
    ASSERT_EQ(to_json(second.config), to_json(first.config)) << text;
    ASSERT_EQ(second.config.train.optimizer.lr, lr);
  }
  EXPECT_GT(accepted, 1250);
}

TEST(ConfigValues, SettingsOfAllRanksLeaveOutWhatMayDiffer) {
  const auto settings = [](const std::vector<std::string>& overrides) {
    const ConfigReading reading = read("", overrides);
    EXPECT_THAT(reading.faults, IsEmpty());
    const auto pairs = settings_of_all_ranks(reading.config);
    return std::map<std::string, std::string>(pairs.begin(), pairs.end());
  };
  const auto base = settings({});
  for (const char* free : {"parallel.threads=2", "parallel.simd=avx2", "log.every_steps=7"})
    EXPECT_EQ(settings({free}), base) << free;
  for (const char* bound :
       {"train.seed=2", "parallel.timeout_s=5", "parallel.reduce=fast", "evaluate.k=[1]",
        "checkpoint.keep=3", "run.max_seconds=9", "data.path=x", "model.form=rows",
        "checkpoint.resume=never", "evaluate.labels=[top-9]", "train.plateau.factor=.1",
        "model.name=tower"})
    EXPECT_NE(settings({bound}), base) << bound;
  // One folder, two names.
  EXPECT_EQ(settings({"run.dir=a"}),
            settings({"run.dir=" + std::filesystem::absolute("b/../a").string()}));
}

}  // namespace
}  // namespace kt
