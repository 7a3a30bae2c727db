// A disk that takes longer than `parallel.timeout_s` is waited for; preloaded (tests/support/slow_disk.c).
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

namespace fs = std::filesystem;

class SlowDisk : public ::testing::Test {
 protected:
  static Arguments arguments(const std::string& run, int64_t steps) {
    return {"--config",
            KT_TINY_CONFIG,
            "data.path=" + (shop_.path() / "dataset").string(),
            "run.dir=" + (shop_.path() / run).string(),
            "parallel.timeout_s=1",
            "checkpoint.every_steps=0",
            fmt::format("train.max_steps={}", steps)};
  }
  static Ended run(const std::string& name, int64_t steps, const Arguments& slow) {
    Arguments all{std::string("LD_PRELOAD=") + KT_SLOW_DISK};
    all.insert(all.end(), slow.begin(), slow.end());
    all.push_back(KT_PROGRAM);
    for (const std::string& argument : arguments(name, steps)) all.push_back(argument);
    return run_program(shop_.path() / "work", all, {.ranks = 2, .program = "/usr/bin/env"});
  }

  static Workshop shop_;
};
Workshop SlowDisk::shop_{"program-slow-disk"};

TEST_F(SlowDisk, IsWaitedForAndResumedFrom) {
  make_replica(shop_.path(), 8);
  ASSERT_EQ(run_program(shop_.path() / "work", arguments("quick", 8)).code, 0);
  // One sync of 1.5 s: in the checkpoint, when the other rank has written its part (rank 1), or while the other waits
  // for what the first does alone (rank 0).
  for (const char* rank : {"0", "1"}) {
    const Ended ended =
        run("slow", rank[0] == '0' ? 3 : 6,
            {std::string("KT_SLOW_RANK=") + rank, "KT_SLOW_FSYNC_MS=1500", "KT_SLOW_TIMES=1"});
    ASSERT_EQ(ended.code, 0) << ended.err;
    EXPECT_THAT(ended.err, HasSubstr(fmt::format("[rank {}] warning: host ", rank)));
    EXPECT_THAT(ended.err, HasSubstr("the disk or its server has not answered for 1."));
    EXPECT_THAT(ended.err, Not(HasSubstr("error")));
  }
  // Many short waits of one rank: together longer than the limit.
  const Ended ended = run("slow", 8,
                          {"KT_SLOW_RANK=1", "KT_SLOW_READ_MS=200", "KT_SLOW_TIMES=10",
                           "KT_SLOW_PATH=" + (shop_.path() / "dataset").string()});
  ASSERT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("at step 6"));
  EXPECT_EQ(json_file(shop_.path() / "slow" / "result.json").at("weights_hash"),
            json_file(shop_.path() / "quick" / "result.json").at("weights_hash"));
}

}  // namespace
}  // namespace kt
