#include "trainer/steps/tested_rows.h"

#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "sharding/gather_shards.h"

namespace kt {

TestedRows tested_rows(const Problem& problem, MpiCommunicator& comm) {
  const Range own = problem.user_rows(comm.world());
  std::vector<uint8_t> users(own.size(), 0);
  TestedRows tested{.users = {}, .videos = std::vector<uint8_t>(problem.dataset.items(), 0)};
  agree(comm, [&] {
    if (problem.dataset.test_rows() == 0)
      user_error(
          "{0}: got true, but {1} has no test table whose pairs it could read; import it with "
          "--test "
          "TABLE, or set {0}=false",
          problem.system.objective.exclude_block ? "model.negatives.exclude_block"
                                                 : "model.exclude_block",
          problem.dataset.path().string());
    const TestTable table = problem.dataset.read_test();
    for (const int32_t user : table.users)
      if (const int64_t row = problem.user_row(user); own.contains(row)) users[row - own.begin] = 1;
    for (const int32_t video : table.item) tested.videos[video] = 1;
  });
  tested.users = gather_to_all<uint8_t>(users, comm);
  return tested;
}

}  // namespace kt
