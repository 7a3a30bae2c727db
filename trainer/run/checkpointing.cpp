#include "trainer/run/checkpointing.h"

#include <map>

#include "io/files/checksum.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/collectives/agree.h"
#include "trainer/run/same_on_all.h"
#include "trainer/run/share.h"

namespace kt {
namespace {

/// Name of an optimizer slot's array beside that of the parameter.
std::string slot_name(const std::string& name, int slot) {
  return name + ".slot" + std::to_string(slot + 1);
}

std::vector<ArrayPart> owned_parts(Parameters& parameters) {
  std::vector<ArrayPart> parts;
  for (ParameterArray& array : parameters.arrays) {
    const auto add = [&](const std::string& name, AlignedFloats& data) {
      parts.push_back({.name = name,
                       .rows = array.spec.rows,
                       .cols = array.spec.cols,
                       .row_begin = array.owned.begin,
                       .row_end = array.owned.end,
                       .data = array.rows(data, array.owned)});
    };
    add(array.spec.name, array.value);
    for (int slot = 0; slot < 2; ++slot)
      if (array.slots[slot].size() == array.value.size() && !array.slots[slot].empty())
        add(slot_name(array.spec.name, slot), array.slots[slot]);
  }
  return parts;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& run_dir, Parameters& parameters,
                     const ProgressState& progress, const nlohmann::json& identity, int64_t keep,
                     MpiCommunicator& comm) {
  const int rank = comm.world().rank;
  agree(comm, [&] {
    if (!parameters.finite())
      user_error(
          "step {}: the weights or the optimizer's state are not finite, so no checkpoint is "
          "written; lower "
          "train.optimizer.lr or set train.clip_norm, and run again: the newest checkpoint is good",
          progress.step);
  });
  std::string temporary;
  solo(comm, 0, "checkpoint begin",
       [&] { temporary = begin_checkpoint(run_dir, progress.step).string(); });
  temporary = share_text(temporary, 0, comm);
  try {
    std::string part;
    agree(comm,
          [&] { part = to_text(write_checkpoint_part(temporary, rank, owned_parts(parameters))); });
    std::vector<PartFile> parts;
    for (const std::string& text : gather_texts(part, comm))
      parts.push_back(nlohmann::json::parse(text).get<PartFile>());
    solo(comm, 0, "checkpoint commit", [&] {
      const int64_t kept[] = {progress.best.step, progress.health.good_checkpoint};
      commit_checkpoint(run_dir, progress.step, temporary,
                        {{"progress", to_json(progress)}, {"identity", identity}}, parts, keep,
                        kept);
    });
  } catch (const AgreedError&) {
    // All ranks are here, so nobody writes into the folder any more.
    if (rank == 0) abandon_checkpoint(temporary);
    throw;
  }
}

std::optional<Checkpoint> find_checkpoint(const std::filesystem::path& run_dir,
                                          const CheckpointChoice& choice, MpiCommunicator& comm) {
  std::string found;
  solo(comm, 0, "checkpoint check", [&] {
    using enum CheckpointChoice::Which;
    if (choice.which == kPath) {
      found = Checkpoint::open(choice.path).path().string();
      return;
    }
    const std::optional<Checkpoint> newest =
        newest_good_checkpoint(run_dir, [&](int64_t step, const std::string& message) {
          log_warning("checkpoint of step {} passed over: {}", step, message);
        });
    if (choice.which == kPathOrNewer) {
      const int64_t step = Checkpoint::open(choice.path, Verify::kManifest).step();
      if (!newest || newest->step() < step) {
        found = Checkpoint::open(choice.path).path().string();
        return;
      }
      if (newest->step() > step)
        log_info(
            "checkpoint.resume: {} is of step {}, and {} has its own of step {}: that one is "
            "continued; to go back, choose another run.dir",
            choice.path.string(), step, run_dir.string(), newest->step());
    }
    if (!newest) {
      if (!list_checkpoints(run_dir).empty())
        user_error("{}: every checkpoint is damaged; train into another run.dir", run_dir.string());
      return;
    }
    found = newest->path().string();
    if (choice.which == kBest) {
      const int64_t best = progress_of(*newest).best.step;
      if (best < 0)
        user_error(
            "{}: no best checkpoint is known: no epoch ended with a value of checkpoint.best; use "
            "evaluate.checkpoint=last",
            run_dir.string());
      found = Checkpoint::open(checkpoint_path(run_dir, best)).path().string();
    }
  });
  found = share_text(found, 0, comm);
  if (found.empty()) return std::nullopt;
  std::optional<Checkpoint> checkpoint;
  same_on_all(comm, [&] {
    checkpoint = Checkpoint::open(found, Verify::kManifest);
    return Facts{{found, checksum_of_file(checkpoint->path() / "manifest.json").xxh128}};
  });
  return checkpoint;
}

ProgressState progress_of(const Checkpoint& checkpoint) try {
  ProgressState progress = progress_from_json(checkpoint.state().at("progress"));
  if (progress.step != checkpoint.step() || progress.best.step > progress.step)
    user_error("its state is of step {} with the best of step {}, expected step {}; remove it",
               progress.step, progress.best.step, checkpoint.step());
  return progress;
} catch (const nlohmann::json::exception& error) {
  user_error("{}: holds no progress of a run ({}); use another checkpoint",
             checkpoint.path().string(), error.what());
} catch (const UserError& error) {
  user_error("{}: {}", checkpoint.path().string(), error.what());
}

nlohmann::json identity_of(const Checkpoint& checkpoint) {
  const nlohmann::json& state = checkpoint.state();
  if (!state.is_object() || !state.contains("identity"))
    user_error("{}: holds no identity of a run; use another checkpoint",
               checkpoint.path().string());
  return state.at("identity");
}

void restore_parameters(Checkpoint& checkpoint, Parameters& parameters, Restore restore,
                        MpiCommunicator& comm) {
  agree(comm, [&] {
    std::map<std::string, Checkpoint::Shape> shapes(checkpoint.arrays().begin(),
                                                    checkpoint.arrays().end());
    for (ParameterArray& array : parameters.arrays) {
      const auto read = [&](const std::string& name, AlignedFloats& data) {
        const auto shape = shapes.find(name);
        if (shape == shapes.end() || shape->second.rows != array.spec.rows ||
            shape->second.cols != array.spec.cols)
          user_error("{}: array {}: got {}, expected {} x {}; this checkpoint is of another model",
                     checkpoint.path().string(), name,
                     shape == shapes.end()
                         ? std::string("none")
                         : fmt::format("{} x {}", shape->second.rows, shape->second.cols),
                     array.spec.rows, array.spec.cols);
        checkpoint.read_rows(name, array.held.begin, array.held.end, data);
      };
      read(array.spec.name, array.value);
      if (restore == Restore::kWeights) continue;
      for (int slot = 0; slot < 2; ++slot)
        if (!array.slots[slot].empty()) read(slot_name(array.spec.name, slot), array.slots[slot]);
    }
  });
  parameters.copy_dense();
}

}  // namespace kt
