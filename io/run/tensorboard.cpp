#include "io/run/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "io/files/files.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

namespace fs = std::filesystem;

/// Reflected table of the Castagnoli polynomial.
constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[i] = crc;
  }
  return table;
}
constexpr auto kCrcTable = crc_table();

/// The CRC-32C as the framing stores it: rotated and shifted by a constant, so that a CRC over data that
/// holds CRCs stays useful.
uint32_t masked_crc(std::string_view bytes) {
  uint32_t crc = 0xffffffffu;
  for (const char byte : bytes)
    crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
template <class T>
T get(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// Protocol buffers: a field is a varint of (number * 8 + wire type), then its value.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void put_tag(std::string& out, uint64_t field, WireType type) { put_varint(out, field * 8 + type); }
void put_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  put_tag(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

void put_double(std::string& out, uint64_t field, double value) {
  put_tag(out, field, kFixed64);
  put(out, value);
}
std::string bytes_field(uint64_t field, std::string_view bytes) {
  std::string out;
  put_bytes(out, field, bytes);
  return out;
}

std::string record(std::string_view data) {
  std::string out;
  put(out, static_cast<uint64_t>(data.size()));
  put(out, masked_crc(std::string_view(out.data(), 8)));
  out += data;
  put(out, masked_crc(data));
  return out;
}

constexpr size_t kHeaderBytes = 12;
constexpr size_t kFooterBytes = 4;

/// Event: wall_time = 1 (double), step = 2 (varint). `rest`: its further fields.
std::string event(double wall_time, int64_t step, std::string_view rest) {
  std::string out;
  put_double(out, 1, wall_time);
  put_tag(out, 2, kVarint);
  put_varint(out, static_cast<uint64_t>(step));
  out += rest;
  return out;
}

/// The step of an event as `event` writes it.
std::optional<int64_t> step_of(std::string_view data) {
  if (data.size() < 11 || data[9] != 2 * 8 + kVarint) return std::nullopt;
  uint64_t step = 0;
  int shift = 0;
  for (size_t i = 10; i < data.size() && shift < 64; ++i, shift += 7) {
    step |= static_cast<uint64_t>(data[i] & 0x7f) << shift;
    if ((data[i] & 0x80) == 0) return static_cast<int64_t>(step);
  }
  return std::nullopt;
}

/// Event: summary = 5. Shapes: values Summary.Value one after the other, as `bytes_field(1, ..)`.
std::string summary_record(double time, int64_t step, std::string_view values) {
  return record(event(time, step, bytes_field(5, values)));
}

// What a session tells of itself is at no step.
constexpr int64_t kSessionStep = -1;

/// HistogramProto: min = 1, max = 2, num = 3, sum = 4, sum_squares = 5 (doubles), bucket_limit = 6, bucket = 7 (packed).
std::string histogram_message(const Histogram& histogram) {
  std::string out, ends, counts;
  int64_t all = 0;
  for (const auto& [end, count] : histogram.buckets) {
    put(ends, end);
    put(counts, static_cast<double>(count));
    all += count;
  }
  put_double(out, 1, histogram.least);
  put_double(out, 2, histogram.largest);
  put_double(out, 3, static_cast<double>(all));
  put_double(out, 4, histogram.sum);
  put_double(out, 5, histogram.squares);
  put_bytes(out, 6, ends);
  put_bytes(out, 7, counts);
  return out;
}

/// google.protobuf.Value: number_value = 2 (double), string_value = 3, bool_value = 4.
std::string value_message(const nlohmann::json& value) {
  std::string out;
  if (value.is_boolean()) {
    put_tag(out, 4, kVarint);
    put_varint(out, value.get<bool>() ? 1 : 0);
  } else if (value.is_number()) {
    put_double(out, 2, value.get<double>());
  } else {
    put_bytes(out, 3, value.is_string() ? value.get<std::string>() : to_text(value));
  }
  return out;
}

/// Of the plugin hparams. Summary.Value: tag = 1, tensor = 8, metadata = 9; the tensor has no elements (dtype = 1: float,
/// shape = 2: one dimension of size 0). SummaryMetadata: plugin_data = 1 {plugin_name = 1, content = 2}. The content:
/// version = 1, left at 0, and `data` in a field of its own.
std::string session_record(double time, const std::string& tag, uint64_t field,
                           std::string_view data) {
  std::string plugin = bytes_field(1, "hparams");
  put_bytes(plugin, 2, bytes_field(field, data));
  std::string value = bytes_field(1, "_hparams_/" + tag);
  put_bytes(value, 8, std::string_view("\x08\x01\x12\x02\x12\x00", 6));
  put_bytes(value, 9, bytes_field(1, plugin));
  return summary_record(time, kSessionStep, bytes_field(1, value));
}

/// SessionStartInfo: hparams = 1 (a map: key = 1, value = 2), start_time_secs = 5.
std::string session_start_record(double time, const nlohmann::json& hyper_parameters) {
  std::string info;
  for (const auto& [key, value] : hyper_parameters.items()) {
    std::string entry = bytes_field(1, key);
    put_bytes(entry, 2, value_message(value));
    put_bytes(info, 1, entry);
  }
  put_double(info, 5, time);
  return session_record(time, "session_start_info", 3, info);
}

/// SessionEndInfo: status = 1 (1: success), end_time_secs = 2.
std::string session_end_record(double time) {
  std::string info("\x08\x01", 2);
  put_double(info, 2, time);
  return session_record(time, "session_end_info", 4, info);
}

/// The records of steps up to `last_step`, as far as they are whole.
std::string records_up_to(std::string_view text, int64_t last_step) {
  std::string kept;
  while (text.size() >= kHeaderBytes + kFooterBytes) {
    const auto size = get<uint64_t>(text);
    if (get<uint32_t>(text.substr(8)) != masked_crc(text.substr(0, 8))) break;
    if (size > text.size() - kHeaderBytes - kFooterBytes) break;
    const std::string_view data = text.substr(kHeaderBytes, size);
    if (get<uint32_t>(text.substr(kHeaderBytes + size)) != masked_crc(data)) break;
    const size_t whole = kHeaderBytes + size + kFooterBytes;
    const std::optional<int64_t> step = step_of(data);
    if (!step) break;
    if (*step != kSessionStep && *step <= last_step) kept += text.substr(0, whole);
    text.remove_prefix(whole);
  }
  return kept;
}

}  // namespace

EventFile::EventFile(const fs::path& folder, int64_t last_step, double start_time,
                     const nlohmann::json& hyper_parameters)
    : path_(folder / "events.out.tfevents.0.kuaitrain") {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    user_error("{}: cannot make this folder: {}; choose another run.dir", folder.string(),
               error.message());
  const std::string before = fs::exists(path_) ? read_text_file(path_) : std::string();
  std::string kept = records_up_to(before, last_step);
  if (kept.empty()) kept = record(event(0, 0, bytes_field(3, "brain.Event:2")));
  replace_file(path_, kept + session_start_record(start_time, hyper_parameters));
  file_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file_ < 0)
    user_error("{}: cannot write it: {}; mend the permissions, then run again", path_.string(),
               std::strerror(errno));
}

EventFile::EventFile(EventFile&& other) noexcept
    : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}

EventFile::~EventFile() {
  if (file_ >= 0) ::close(file_);
}

void EventFile::add(int64_t step, double time,
                    const std::vector<std::pair<std::string, double>>& scalars) {
  std::string values;
  for (const auto& [tag, number] : scalars) {
    std::string value = bytes_field(1, tag);  // Summary.Value: tag = 1, simple_value = 2 (float)
    put_tag(value, 2, kFixed32);
    put(value, static_cast<float>(number));
    put_bytes(values, 1, value);
  }
  append(summary_record(time, step, values));
}

void EventFile::add(int64_t step, double time,
                    const std::vector<std::pair<std::string, Histogram>>& histograms) {
  std::string values;
  for (const auto& [tag, histogram] : histograms) {
    std::string value = bytes_field(1, tag);  // Summary.Value: tag = 1, histo = 5
    put_bytes(value, 5, histogram_message(histogram));
    put_bytes(values, 1, value);
  }
  append(summary_record(time, step, values));
}

void EventFile::end_session(double time) { append(session_end_record(time)); }

void EventFile::append(const std::string& record) {
  const DiskWait wait("writing", path_);
  const ssize_t written = ::write(file_, record.data(), record.size());
  if (written != static_cast<ssize_t>(record.size()))
    user_error("{}: cannot write it: {}; free space or mend the permissions, then run again",
               path_.string(), std::strerror(written < 0 ? errno : ENOSPC));
}

}  // namespace kt
