#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "launch/base/errors.h"
#include "launch/process/mpi_session.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class GuardsTest : public ::testing::Test {
 protected:
  GuardsTest() {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_PROCID", "SLURM_NTASKS",
                             "SLURM_STEP_NUM_TASKS"}) {
      unsetenv(name);
    }
  }
  static void set(const char* name, const char* value) { setenv(name, value, 1); }
};

template <class Call>
std::string user_error_of(Call&& call) {
  try {
    call();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(GuardsTest, ByHandThereIsOneTask) { EXPECT_EQ(launched_tasks(), 1); }

TEST_F(GuardsTest, MpirunTellsItsNumberOfTasks) {
  set("OMPI_COMM_WORLD_SIZE", "3");
  EXPECT_EQ(launched_tasks(), 3);
}

TEST_F(GuardsTest, AnotherMpiTellsItsNumberOfTasks) {
  set("PMI_SIZE", "5");
  EXPECT_EQ(launched_tasks(), 5);
}

TEST_F(GuardsTest, SrunTellsTheTasksOfItsStep) {
  set("SLURM_PROCID", "1");
  set("SLURM_NTASKS", "4");
  set("SLURM_STEP_NUM_TASKS", "4");
  EXPECT_EQ(launched_tasks(), 4);
}

TEST_F(GuardsTest, TheBatchScriptItselfIsOneTask) {
  set("SLURM_PROCID", "0");
  set("SLURM_NTASKS", "4");
  EXPECT_EQ(launched_tasks(), 1);
  EXPECT_NO_THROW(refuse_lonely_world({0, 1}));
  EXPECT_NO_THROW(refuse_several_ranks("import"));
}

TEST_F(GuardsTest, MpirunInsideAStepIsBelieved) {
  // On further machines mpirun's daemons are a step of their own.
  set("SLURM_PROCID", "0");
  set("SLURM_STEP_NUM_TASKS", "2");
  set("OMPI_COMM_WORLD_SIZE", "1");
  EXPECT_NO_THROW(refuse_lonely_world({0, 1}));
}

TEST_F(GuardsTest, ALonelyWorldAmongSeveralTasksIsRefused) {
  set("SLURM_PROCID", "0");
  set("SLURM_STEP_NUM_TASKS", "4");
  EXPECT_THAT(user_error_of([] {
                refuse_lonely_world({0, 1});
              }),
              AllOf(HasSubstr("4 tasks were launched"), HasSubstr("srun --mpi=pmix")));
  set("SLURM_PROCID", "2");
  EXPECT_EQ(user_error_of([] { refuse_lonely_world({0, 1}); }), "");
  EXPECT_NO_THROW(refuse_lonely_world({2, 4}));
}

TEST_F(GuardsTest, AnotherNumberOfRanksThanGivenIsRefused) {
  EXPECT_NO_THROW(expect_ranks({0, 3}, 3));
  EXPECT_NO_THROW(expect_ranks({0, 3}, 0));
  EXPECT_THAT(user_error_of([] {
                expect_ranks({2, 3}, 4);
              }),
              AllOf(HasSubstr("parallel.ranks: got 4, but the run was started on 3 ranks"),
                    HasSubstr("mpirun -np 4")));
}

TEST_F(GuardsTest, OneProcessInAJobOfSeveralTasksIsRefused) {
  set("SLURM_NTASKS", "4");
  EXPECT_THAT(user_error_of([] {
                expect_ranks({0, 1}, 0);
              }),
              AllOf(HasSubstr("the SLURM job has 4 tasks"), HasSubstr("parallel.ranks=1")));
  EXPECT_NO_THROW(expect_ranks({0, 1}, 1));
  EXPECT_NO_THROW(expect_ranks({0, 4}, 0));
  set("OMPI_COMM_WORLD_SIZE", "1");  // somebody asked mpirun for one
  EXPECT_NO_THROW(expect_ranks({0, 1}, 0));
}

TEST_F(GuardsTest, OneProcessCommandsRefuseSeveralTasks) {
  set("OMPI_COMM_WORLD_SIZE", "2");
  EXPECT_THAT(user_error_of([] { refuse_several_ranks("import"); }),
              AllOf(HasSubstr("`import` runs as one process, but 2 tasks were launched"),
                    HasSubstr("without mpirun")));
}

}  // namespace
}  // namespace kt
