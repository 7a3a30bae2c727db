#include "trainer/supervision/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "launch/base/errors.h"
#include "trainer/supervision/batch_script.h"

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

TEST(Supervisor, WhatEndsAndWhatGoesOn) {
  for (const int code : {0, 2, 70, 85, 3, 127}) EXPECT_EQ(sequel_of(code, false), Sequel::kEnds);
  for (const int code : {1, 75, 134, 137, 143})
    EXPECT_EQ(sequel_of(code, false), Sequel::kRestarts);
  EXPECT_EQ(sequel_of(85, true), Sequel::kGoesOn);
  EXPECT_EQ(sequel_of(0, true), Sequel::kEnds);
}

TEST(Supervisor, HostsAsMpirunNamesThem) {
  EXPECT_THAT(hosts_of(""), IsEmpty());
  EXPECT_THAT(hosts_of("n1:4,n2"), ElementsAre(Host{"n1", 4}, Host{"n2", 1}));
  for (const char* text : {"n1:", "n1:0", "n1:two", ":2", "n1,,n2", "n1:-1"})
    EXPECT_THAT([&] { hosts_of(text); },
                ThrowsMessage<UserError>(HasSubstr("expected hosts with the ranks each takes")))
        << text;
  EXPECT_THAT([&] { hosts_of("n1:1,n1:2"); },
              ThrowsMessage<UserError>(HasSubstr("n1 is named twice")));
}

constexpr const char* kTemplate =
    "#!/bin/bash\n# kuaitrain: x\n# Set what y\n#SBATCH --job-name=kuaitrain\n#SBATCH --nodes=2\n"
    "#SBATCH --ntasks-per-node=2\n#SBATCH --cpus-per-task=1\n#SBATCH --time=01:00:00\n"
    "##SBATCH --mem=4G\n##SBATCH --partition=PARTITION\n##SBATCH --account=ACCOUNT\n"
    "##SBATCH --gpus-per-node=4\n#SBATCH --signal=B:USR2@120\nfolder=.  # of all\nprogram=p\n"
    "launcher='mpirun'\narguments=(a)\nrest\n";

TEST(BatchScript, LinesOfTheRunTakeThePlaceOfTheTemplates) {
  BatchJob job{.name = "ncf", .nodes = 3, .launcher = "srun --mpi=pmix", .folder = "/a b"};
  job.memory_mb = 700;
  job.program = "/bin/kuaitrain";
  job.arguments = {"--config", "it's.yaml", "train.epochs=2"};
  const std::string text = batch_script(kTemplate, job);
  EXPECT_EQ(text.substr(text.find("#SBATCH")),
            "#SBATCH --job-name=ncf\n#SBATCH --nodes=3\n#SBATCH --ntasks-per-node=1\n"
            "#SBATCH --cpus-per-task=1\n#SBATCH --time=01:00:00\n#SBATCH --mem=700M\n"
            "##SBATCH --partition=PARTITION\n##SBATCH --account=ACCOUNT\n"
            "##SBATCH --gpus-per-node=4\n#SBATCH --signal=B:USR2@120\nfolder='/a b'\n"
            "program=/bin/kuaitrain\nlauncher='srun --mpi=pmix'\n"
            "arguments=(--config 'it'\\''s.yaml' train.epochs=2)\nrest\n");
  EXPECT_TRUE(is_batch_script(text));
  EXPECT_FALSE(is_batch_script(kTemplate));
}

TEST(BatchScript, ATemplateWithoutALineIsRefused) {
  EXPECT_THAT([] { batch_script("# Set what\n", {}); },
              ThrowsMessage<UserError>(HasSubstr("got no line `#SBATCH --job-name=...`")));
  EXPECT_THAT([] { signal_lead_s("x\n"); }, ThrowsMessage<UserError>(HasSubstr("--signal")));
  EXPECT_EQ(signal_lead_s(kTemplate), 120);
}

TEST(BatchScript, Times) {
  EXPECT_EQ(seconds_of("00:01:05"), 65);
  EXPECT_EQ(seconds_of("1-02:00:00"), 26 * 3600);
  for (const char* text : {"", "5", "1:00", "00:60:00", "1h", "-00:01:00", "00:01:00 "})
    EXPECT_EQ(seconds_of(text), std::nullopt) << text;
}

}  // namespace
}  // namespace kt
