#include "launch/base/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kt {
namespace {

using namespace std::string_literals;

TEST(Text, Utf8IsWhatTheStandardSays) {
  for (const char* text : {"", "plain\x7f", "\xc3\xa4", "\xe4\xbd\xa0\xe5\xa5\xbd",
                           "\xf0\x9f\x98\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(is_utf8(text)) << text;
  for (const char* text :
       {"\xe4", "\xc3", "\xe4\xbd", "\xf0\x9f\x98", "\x80", "a\xff", "\xc0\xaf", "\xc1\xbf",
        "\xe0\x80\xaf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xc3(", "\xe4\xbd(", "\xc4\xe3\xba\xc3"})
    EXPECT_FALSE(is_utf8(text)) << text;
}

TEST(Text, PrintableShowsWhatATerminalCannotTake) {
  EXPECT_EQ(printable("a line\n\twith \xe4\xbd\xa0"), "a line\n\twith \xe4\xbd\xa0");
  EXPECT_EQ(printable("\0\x1b[2J\r\x7f"s), "\\x00\\x1b[2J\\x0d\\x7f");
  EXPECT_EQ(printable("t\xe4.csv\xe4\xbd"), "t\\xe4.csv\\xe4\\xbd");
  EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b");
}

TEST(Text, WordsOfALauncher) {
  EXPECT_THAT(words_of(" srun  --mpi=pmix "), ::testing::ElementsAre("srun", "--mpi=pmix"));
}

}  // namespace
}  // namespace kt
