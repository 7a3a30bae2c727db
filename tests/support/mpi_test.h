#pragma once

#include <gtest/gtest.h>

#include "launch/collectives/mpi_communicator.h"

namespace kt {

/// The base of tests on real ranks (`kt_mpi_test`): a communicator of the test's own, and at its end all
/// ranks agree on pass or fail. A fatal failure ends all ranks at once (tests/support/mpi_main.cpp).
class MpiTest : public ::testing::Test {
 protected:
  MpiTest() : comm(MPI_COMM_WORLD), world(comm.world()) {}
  void TearDown() override;

  MpiCommunicator comm;
  World world;
};

}  // namespace kt
