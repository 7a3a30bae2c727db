#include "trainer/steps/make_steps.h"

#include "trainer/steps/als_step.h"
#include "trainer/steps/autoencoder_step.h"
#include "trainer/steps/full_softmax_step.h"
#include "trainer/steps/gram_step.h"
#include "trainer/steps/host_steps.h"
#include "trainer/steps/means_step.h"
#include "trainer/steps/profile_step.h"
#include "trainer/steps/trees_step.h"

namespace kt {

std::unique_ptr<Steps> make_steps(const Problem& problem, Parameters& parameters,
                                  const Schedule& schedule, std::span<const ShardSamples> samples,
                                  const NegativeSampler* negatives, Requests& requests,
                                  Devices* devices, MpiCommunicator& comm, ThreadPool& pool) {
  const System& system = problem.system;
  if (system.gram) return std::make_unique<GramStep>(problem, parameters, samples, comm, pool);
  if (system.als)
    return std::make_unique<AlsStep>(problem, parameters, schedule, samples, devices, comm, pool);
  if (system.profiles) return std::make_unique<ProfileStep>(problem, parameters, comm, pool);
  if (system.trees) return std::make_unique<TreesStep>(problem, parameters, samples, comm);
  if (system.encoder && !devices)
    return std::make_unique<AutoencoderStep>(problem, parameters, schedule, samples, comm, pool);
  if (system.means && !system.encoder)
    return std::make_unique<MeansStep>(*system.means, system.objective, parameters, samples, comm,
                                       pool);
  if (system.objective.is_full_softmax())
    return std::make_unique<FullSoftmaxStep>(problem, parameters, schedule, samples, comm, pool);
  if (devices)
    return devices->make_steps(problem, parameters, schedule, samples, negatives, comm, pool);
  return std::make_unique<HostSteps>(problem, parameters, schedule, samples, negatives, requests,
                                     comm, pool);
}

}  // namespace kt
