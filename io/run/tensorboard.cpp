#include "io/run/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include "io/files/files.h"
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
  put_tag(out, 1, kFixed64);
  put(out, wall_time);
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
    if (*step <= last_step) kept += text.substr(0, whole);
    text.remove_prefix(whole);
  }
  return kept;
}

}  // namespace

EventFile::EventFile(const fs::path& folder, int64_t last_step)
    : path_(folder / "events.out.tfevents.0.kuaitrain") {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    user_error("{}: cannot make this folder: {}; choose another run.dir", folder.string(),
               error.message());
  const std::string before = fs::exists(path_) ? read_text_file(path_) : std::string();
  std::string kept = records_up_to(before, last_step);
  if (kept.empty()) {
    std::string version;
    put_bytes(version, 3, "brain.Event:2");
    kept = record(event(0, 0, version));
  }
  if (kept != before) replace_file(path_, kept);
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

void EventFile::add(int64_t step, double wall_time,
                    const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) {
    std::string entry;  // Summary.Value: tag = 1, simple_value = 2 (float)
    put_bytes(entry, 1, tag);
    put_tag(entry, 2, kFixed32);
    put(entry, static_cast<float>(value));
    put_bytes(summary, 1, entry);
  }
  std::string rest;
  put_bytes(rest, 5, summary);
  const std::string bytes = record(event(wall_time, step, rest));
  const DiskWait wait("writing", path_);
  const ssize_t written = ::write(file_, bytes.data(), bytes.size());
  if (written != static_cast<ssize_t>(bytes.size()))
    user_error("{}: cannot write it: {}; free space or mend the permissions, then run again",
               path_.string(), std::strerror(written < 0 ? errno : ENOSPC));
}

}  // namespace kt
