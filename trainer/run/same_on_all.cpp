#include "trainer/run/same_on_all.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "launch/process/mpi_session.h"
#include "trainer/run/share.h"

namespace kt {
namespace {

constexpr size_t kBuildBytes = 128;
constexpr size_t kShownValues = 8;
// What a rank has instead of facts when they could not be had.
constexpr const char* kFault = "fault";
constexpr const char* kNone = "none";

/// Ascending ranks as `rank 1` or `ranks 0, 2-3`.
std::string ranks_text(const std::vector<int>& ranks) {
  std::vector<std::string> runs;
  for (size_t first = 0; first < ranks.size();) {
    size_t last = first;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    runs.push_back(first == last ? fmt::format("{}", ranks[first])
                                 : fmt::format("{}-{}", ranks[first], ranks[last]));
    first = last + 1;
  }
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(runs, ", "));
}

const std::string* find(const Facts& facts, const std::string& name) {
  for (const auto& [key, value] : facts)
    if (key == name) return &value;
  return nullptr;
}

/// The hosts of these ranks, as ` (n1, n2)`.
std::string hosts_text(const std::vector<int>& ranks, const std::vector<std::string>& hosts) {
  std::vector<std::string> names;
  for (const int rank : ranks)
    if (std::find(names.begin(), names.end(), hosts[rank]) == names.end())
      names.push_back(hosts[rank]);
  return fmt::format(" ({})", fmt::join(names, ", "));
}

[[noreturn]] void throw_differences(const std::vector<Facts>& facts,
                                    const std::vector<std::string>& hosts) {
  throw AgreedError(fmt::format(
      "the ranks of this run do not agree: {}\nstart all with the same program, arguments and "
      "files; parallel.threads, parallel.simd and log.* alone may differ",
      fmt::join(differences_of_ranks(facts, hosts), "\n")));
}

}  // namespace

std::vector<std::string> differences_of_ranks(const std::vector<Facts>& facts,
                                              const std::vector<std::string>& hosts) {
  const bool several =
      std::ranges::any_of(hosts, [&](const std::string& host) { return host != hosts.front(); });
  std::vector<std::string> names;
  for (const Facts& of_rank : facts)
    for (const auto& [name, value] : of_rank)
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  std::vector<std::string> lines;
  for (const std::string& name : names) {
    std::vector<std::pair<std::string, std::vector<int>>> values;  // in the order of the ranks
    for (size_t rank = 0; rank < facts.size(); ++rank) {
      const std::string* found = find(facts[rank], name);
      const std::string value = found ? *found : kNone;
      auto at = std::find_if(values.begin(), values.end(),
                             [&](const auto& known) { return known.first == value; });
      if (at == values.end()) at = values.insert(at, {value, {}});
      at->second.push_back(static_cast<int>(rank));
    }
    if (values.size() < 2) continue;
    std::vector<std::string> parts;
    for (size_t k = 0; k < std::min(values.size(), kShownValues); ++k)
      parts.push_back(fmt::format("{} on {}{}", values[k].first, ranks_text(values[k].second),
                                  several ? hosts_text(values[k].second, hosts) : ""));
    if (values.size() > kShownValues)
      parts.push_back(fmt::format("{} more values", values.size() - kShownValues));
    lines.push_back(fmt::format("{}: {}", name, fmt::join(parts, "; ")));
  }
  return lines;
}

void same_on_all(MpiCommunicator& comm, const std::function<Facts()>& facts_of) {
  Facts own;
  bool failed = false;
  // Reading may take long, on one rank more than on others: `agree` waits for it.
  agree(comm, [&] {
    try {
      own = facts_of();
    } catch (const UserError& error) {
      own = {{kFault, error.what()}};
      failed = true;
    }
  });
  const std::string text = to_text(nlohmann::json(own));
  // The least of a hash and of its complement: both are this rank's where all have the same.
  const uint64_t hash = std::hash<std::string>{}(text);
  std::array<uint64_t, 2> least{hash, ~hash};
  comm.all_reduce(std::span<uint64_t>(least), Reduction::kMin);
  if (least == std::array<uint64_t, 2>{hash, ~hash}) {
    if (failed) throw AgreedError(own[0].second);
    return;
  }
  std::vector<Facts> all;
  for (const std::string& of_rank : gather_texts(text, comm))
    all.push_back(nlohmann::json::parse(of_rank).get<Facts>());
  // An error on some ranks: the facts that those do not have are no news.
  if (std::any_of(all.begin(), all.end(), [](const Facts& f) { return find(f, kFault); }))
    for (Facts& of_rank : all)
      if (!find(of_rank, kFault)) of_rank.clear();
  throw_differences(all, gather_texts(MpiSession::start().host(), comm));
}

void same_build_on_all(Communicator& comm, const std::string& build) {
  std::array<uint8_t, kBuildBytes> own{};
  std::copy_n(build.begin(), std::min(build.size(), kBuildBytes - 1), own.begin());
  const int size = comm.world().size;
  std::vector<uint8_t> all(kBuildBytes * size);
  comm.all_gather<uint8_t>(own, all, std::vector<int64_t>(size, kBuildBytes));
  std::vector<Facts> builds;
  for (int rank = 0; rank < size; ++rank)
    builds.push_back({{"program", reinterpret_cast<const char*>(all.data() + kBuildBytes * rank)}});
  // Hosts are not asked for: another build may send no such thing.
  if (!differences_of_ranks(builds, {}).empty()) throw_differences(builds, {});
}

}  // namespace kt
