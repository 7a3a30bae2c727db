#include "io/tables/id_dictionary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(IdNumbers, AscendOrThereAreNone) {
  const auto numbers = [](std::vector<std::string> ids) { return ascending_numbers(ids); };
  EXPECT_THAT(numbers({"0", "5", "010", "15"}), ElementsAre(0, 5, 10, 15));
  EXPECT_THAT(numbers({"0", "5", "5"}), IsEmpty());
  EXPECT_THAT(numbers({"5", "10", "7"}), IsEmpty());
  EXPECT_THAT(numbers({"-1", "5"}), IsEmpty());
  EXPECT_THAT(numbers({"1", "v2"}), IsEmpty());
}

}  // namespace
}  // namespace kt
