#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "launch/collectives/mpi_communicator.h"

/// Ranks are started one by one, by hand or by scripts, and each reads its own arguments, files and program. What
/// they do not agree on is found before anything is computed.
namespace kt {

/// Names and values, the same names on all ranks that run the same command.
using Facts = std::vector<std::pair<std::string, std::string>>;

/// Runs `facts_of` on every rank and compares what it returns. Like `agree` (launch/collectives/agree.h), it goes on on all ranks
/// or throws on all: an error of `facts_of` too, and says which ranks have it, where not all have the same.
/// A fact a rank does not have is "none" there. Where the ranks are on several hosts, those of a value are named too. Cost: two small all-reduces, while all agree.
/// Collective: all ranks. Throws: AgreedError, as `train.seed: 1 on ranks 0, 2-3; 2 on rank 1`.
void same_on_all(MpiCommunicator& comm, const std::function<Facts()>& facts_of);

/// The first words between ranks, in a form that stays: other builds may do all that follows in another way.
/// Collective: all ranks. Throws: AgreedError when the texts, at most 127 bytes of them, differ.
void same_build_on_all(Communicator& comm, const std::string& build);

/// A line for every fact that is not the same on all ranks; `hosts` are named where there are several.
/// Shapes: facts [ranks]; hosts [ranks], or none that are known.
std::vector<std::string> differences_of_ranks(const std::vector<Facts>& facts,
                                              const std::vector<std::string>& hosts);

}  // namespace kt
