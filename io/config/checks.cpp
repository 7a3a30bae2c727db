#include "io/config/checks.h"

#include <utility>

namespace kt {
namespace {

using Found = std::vector<Contradiction>;

void check_schedule(const Config::Train& train, Found& found) {
  const auto& schedule = train.schedule;
  if (schedule.steps > 0 && schedule.warmup_steps > schedule.steps)
    found.push_back({{"train.schedule.warmup_steps", "train.schedule.steps"},
                     "at most as many warm-up steps as the schedule has; lower the first or raise "
                     "the second"});
  if (schedule.steps > 0 && schedule.name == ScheduleName::kConstant)
    found.push_back({{"train.schedule.steps", "train.schedule.name"},
                     "a length only for linear or cosine; set one of them, or steps to 0"});
  if (train.plateau.metric == SelectionMetric::kNone) return;
  if (schedule.name != ScheduleName::kConstant)
    found.push_back({{"train.plateau.metric", "train.schedule.name"},
                     "one of them to lower the learning rate; set the schedule to constant or the "
                     "metric to none"});
  if (train.plateau.min_lr > train.optimizer.lr)
    found.push_back({{"train.plateau.min_lr", "train.optimizer.lr"},
                     "at most the learning rate that it falls from; lower the first or raise the "
                     "second"});
}

void check_optimizer(const OptimizerOptions& optimizer, Found& found) {
  if (optimizer.momentum > 0 && optimizer.name != OptimizerName::kSgd)
    found.push_back({{"train.optimizer.momentum", "train.optimizer.name"},
                     "momentum only with sgd; set momentum to 0 or the name to sgd"});
  if (optimizer.name != OptimizerName::kSgd) return;
  const OptimizerOptions defaults;
  const std::pair<const char*, bool> moments[] = {
      {"train.optimizer.beta1", optimizer.beta1 != defaults.beta1},
      {"train.optimizer.beta2", optimizer.beta2 != defaults.beta2},
      {"train.optimizer.epsilon", optimizer.epsilon != defaults.epsilon}};
  for (const auto& [path, changed] : moments)
    if (changed)
      found.push_back({{path, "train.optimizer.name"},
                       "that key only with adam or adamw; leave it out or change the name"});
}

void check_selection(const Config& c, Found& found) {
  const std::pair<const char*, SelectionMetric> metrics[] = {
      {"train.early_stop.metric", c.train.early_stop.metric},
      {"train.plateau.metric", c.train.plateau.metric},
      {"checkpoint.best", c.checkpoint.best}};
  for (const auto& [path, metric] : metrics)
    if (c.data.validation.fraction == 0 && metric != SelectionMetric::kNone)
      found.push_back({{path, "data.validation.fraction"},
                       "validation rows to measure it on; raise the fraction or set " +
                           std::string(path) + " to none"});
  if (c.evaluate.checkpoint == EvaluatedCheckpoint::kBest &&
      c.checkpoint.best == SelectionMetric::kNone)
    found.push_back({{"evaluate.checkpoint", "checkpoint.best"},
                     "a metric that decides the best one; set checkpoint.best to one, or "
                     "evaluate.checkpoint to last"});
}

void check_devices(const Config& c, Found& found) {
  if (c.parallel.precision != Precision::kFp32 && c.parallel.reduce == Reduce::kExact)
    found.push_back({{"parallel.precision", "parallel.reduce"},
                     "exact bits only with fp32; set parallel.precision to fp32, or "
                     "parallel.reduce to fast"});
  if (c.parallel.precision != Precision::kFp32 && c.parallel.backend == Backend::kMpi)
    found.push_back({{"parallel.precision", "parallel.backend"},
                     "reduced precision only on GPUs; set parallel.precision to fp32, or "
                     "parallel.backend to nccl"});
  if (c.model.engine == EngineName::kTorch && c.model.form == FormName::kIds)
    found.push_back(
        {{"model.engine", "model.form"},
         "ids only with the fused engine; set model.engine to fused, or model.form to rows"});
  if (c.model.engine == EngineName::kFused && c.parallel.precision != Precision::kFp32)
    found.push_back({{"model.engine", "parallel.precision"},
                     "the fused engine only with fp32; set model.engine to torch, or "
                     "parallel.precision to fp32"});
}

}  // namespace

std::vector<Contradiction> contradictions_of(const Config& config) {
  Found found;
  check_schedule(config.train, found);
  check_optimizer(config.train.optimizer, found);
  check_selection(config, found);
  check_devices(config, found);
  return found;
}

}  // namespace kt
