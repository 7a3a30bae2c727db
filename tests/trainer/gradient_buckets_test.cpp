#include "trainer/devices/gradient_buckets.h"

#include <gmock/gmock.h>

#include <utility>

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Given = std::vector<std::pair<int64_t, int64_t>>;  // first element, elements

TEST(GradientBuckets, AreCutFromTheLastParameter) {
  // Elements 0-5, 6-9, 10-14, 15.
  const std::vector<int64_t> sizes{6, 4, 5, 1};
  const auto all = [&](int64_t bucket_size) {
    GradientBuckets buckets(sizes, bucket_size);
    buckets.begin();
    Given given;
    for (size_t k = sizes.size(); k-- > 0;)
      buckets.written(k, [&](int64_t begin, int64_t size) { given.emplace_back(begin, size); });
    EXPECT_TRUE(buckets.complete());
    return given;
  };
  EXPECT_THAT(all(1),
              ElementsAre(std::pair(15, 1), std::pair(10, 5), std::pair(6, 4), std::pair(0, 6)));
  EXPECT_THAT(all(4), ElementsAre(std::pair(10, 6), std::pair(6, 4), std::pair(0, 6)));
  EXPECT_THAT(all(7), ElementsAre(std::pair(6, 10), std::pair(0, 6)));
  EXPECT_THAT(all(GradientBuckets::kSize), ElementsAre(std::pair(0, 16)));
}

TEST(GradientBuckets, AreGivenOutCompleteAndInOneOrder) {
  GradientBuckets buckets(std::vector<int64_t>{6, 4, 5, 1}, 4);
  for (int step = 0; step < 2; ++step) {
    buckets.begin();
    Given given;
    const auto written = [&](size_t k) {
      buckets.written(k, [&](int64_t begin, int64_t size) { given.emplace_back(begin, size); });
    };
    written(1);
    written(2);  // half of the first bucket
    EXPECT_THAT(given, IsEmpty());
    EXPECT_FALSE(buckets.complete());
    written(3);
    EXPECT_THAT(given, ElementsAre(std::pair(10, 6), std::pair(6, 4)));
    EXPECT_THROW(written(3), BugError);
    EXPECT_THROW(written(4), BugError);
    EXPECT_FALSE(buckets.complete());
    written(0);
    EXPECT_THAT(given, ElementsAre(std::pair(10, 6), std::pair(6, 4), std::pair(0, 6)));
    EXPECT_TRUE(buckets.complete());
  }
}

TEST(GradientBuckets, AModelMayHaveNoDenseParameters) {
  GradientBuckets buckets({}, 4);
  buckets.begin();
  EXPECT_TRUE(buckets.complete());
}

}  // namespace
}  // namespace kt
