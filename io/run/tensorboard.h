#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "launch/base/histogram.h"

namespace kt {

/// The TensorBoard event file of a run: one file of a fixed name, so that a resumed run goes on in it.
/// Source: the record framing (length, masked CRC-32C, data), the Event and Summary messages and those of the plugin
/// hparams, which TensorBoard documents.
/// Units: times in seconds since the epoch.
class EventFile {
 public:
  /// Opens or makes the file in `folder` and drops what it has past `last_step` (-1: everything), and a
  /// record that was not finished. Then tells that a session of these hyper-parameters started: an object of numbers,
  /// flags and texts; another value is its JSON. What earlier sessions told of themselves is dropped.
  /// Throws: UserError when it cannot be written.
  EventFile(const std::filesystem::path& folder, int64_t last_step, double start_time,
            const nlohmann::json& hyper_parameters);
  EventFile(EventFile&& other) noexcept;
  EventFile& operator=(EventFile&&) = delete;
  ~EventFile();

  const std::filesystem::path& path() const { return path_; }

  // Each adds one event, handed to the operating system at once. Throws: UserError when it cannot be written.
  void add(int64_t step, double time, const std::vector<std::pair<std::string, double>>& scalars);
  void add(int64_t step, double time,
           const std::vector<std::pair<std::string, Histogram>>& histograms);
  /// The session has ended well.
  void end_session(double time);

 private:
  void append(const std::string& record);

  std::filesystem::path path_;
  int file_ = -1;
};

}  // namespace kt
