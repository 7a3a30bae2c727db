#include "trainer/run/found_means.h"

#include "models/systems/means.h"

namespace kt {

FoundMeans found_means(const Parameters& parameters, Communicator& comm) {
  const AlignedFloats& users = parameters.find(kUserMeans).value;
  return {.users = {users.begin(), users.end()},
          .videos = parameters.gather_items(parameters.find(kVideoMeans), comm),
          .all = parameters.dense[parameters.find(kMeanOfAll).dense_offset]};
}

}  // namespace kt
