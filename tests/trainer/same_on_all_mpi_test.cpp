#include <gmock/gmock.h>

#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "tests/support/mpi_test.h"
#include "trainer/run/same_on_all.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> differences(const std::vector<Facts>& facts) {
  return differences_of_ranks(facts, std::vector<std::string>(facts.size(), "n1"));
}

TEST(DifferencesOfRanks, NameValuesAndRanks) {
  const Facts one{{"train.seed", "1"}, {"run.dir", "a"}},
      two{{"train.seed", "2"}, {"run.dir", "a"}};
  EXPECT_THAT(differences({one, one, one}), IsEmpty());
  EXPECT_THAT(differences({one, two, one, one}),
              ElementsAre("train.seed: 1 on ranks 0, 2-3; 2 on rank 1"));
  EXPECT_THAT(differences({one, {}}), ElementsAre("train.seed: 1 on rank 0; none on rank 1",
                                                  "run.dir: a on rank 0; none on rank 1"));
  std::vector<Facts> many;
  for (int rank = 0; rank < 20; ++rank) many.push_back({{"k", std::to_string(rank)}});
  EXPECT_THAT(differences(many),
              ElementsAre(AllOf(HasSubstr("7 on rank 7"), HasSubstr("12 more values"))));
}

TEST(DifferencesOfRanks, OfSeveralHostsNameThem) {
  const Facts one{{"hash of the data set", "aa"}}, two{{"hash of the data set", "bb"}};
  EXPECT_THAT(
      differences_of_ranks({one, one, two, two, one}, {"n1", "n1", "n2", "n2", "n3"}),
      ElementsAre("hash of the data set: aa on ranks 0-1, 4 (n1, n3); bb on ranks 2-3 (n2)"));
}

class SameOnAll : public MpiTest {
 protected:
  template <class Call>
  std::string error_of(Call&& call) {
    std::string message = "none";
    try {
      call();
    } catch (const AgreedError& error) {
      message = error.what();
    }
    // All ranks still speak the same language.
    int64_t sum = world.rank + 1;
    comm.all_reduce(std::span(&sum, 1), Reduction::kSum);
    EXPECT_EQ(sum, world.size * (world.size + 1) / 2);
    return message;
  }
  bool is_last() const { return world.rank == world.size - 1; }
  std::string others() const { return world.size == 3 ? "ranks 0-1" : "rank 0"; }
};

TEST_F(SameOnAll, EqualFactsGoOn) {
  EXPECT_EQ(error_of([&] { same_on_all(comm, [] {
                             return Facts{{"a", "1"}, {"b", ""}};
                           }); }),
            "none");
  EXPECT_EQ(error_of([&] { same_build_on_all(comm, std::string(500, 'x')); }), "none");
}

TEST_F(SameOnAll, DifferencesAreThrownByAll) {
  const std::string error = error_of([&] {
    same_on_all(comm, [&] {
      return Facts{{"train.seed", is_last() ? "2" : "1"}, {"run.dir", "a"}};
    });
  });
  const std::string build =
      error_of([&] { same_build_on_all(comm, is_last() ? "0.2" : "0.1, of another day"); });
  if (world.size == 1) {
    EXPECT_EQ(error + build, "nonenone");
    return;
  }
  const std::string last = std::to_string(world.size - 1);
  EXPECT_THAT(error, HasSubstr("do not agree: train.seed: 1 on " + others() + "; 2 on rank " +
                               last + "\nstart all"));
  EXPECT_THAT(build,
              HasSubstr("program: 0.1, of another day on " + others() + "; 0.2 on rank " + last));
}

TEST_F(SameOnAll, AFaultNamesItsRanks) {
  const auto facts_unless = [](bool fails) {
    if (fails) user_error("c.yaml:3: unknown key");
    return Facts{{"train.seed", "1"}};
  };
  EXPECT_EQ(error_of([&] { same_on_all(comm, [&] { return facts_unless(true); }); }),
            "c.yaml:3: unknown key");
  const std::string error =
      error_of([&] { same_on_all(comm, [&] { return facts_unless(is_last()); }); });
  if (world.size == 1) return;
  const std::string last = std::to_string(world.size - 1);
  EXPECT_THAT(error, AllOf(HasSubstr("fault: none on " + others() +
                                     "; c.yaml:3: unknown key on rank " + last),
                           ::testing::Not(HasSubstr("train.seed"))));
}

}  // namespace
}  // namespace kt
