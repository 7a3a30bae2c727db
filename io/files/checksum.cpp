#include "io/files/checksum.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>

#include "launch/base/errors.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

std::string hex_of(XXH128_hash_t hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

struct Checksum::State {
  State() : xxh(XXH3_createState()) {
    KT_CHECK(xxh != nullptr);
    XXH3_128bits_reset(xxh);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { XXH3_freeState(xxh); }
  XXH3_state_t* xxh;
};

Checksum::Checksum() : state_(std::make_unique<State>()) {}
Checksum::~Checksum() = default;

void Checksum::bytes(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
}

void Checksum::text(std::string_view text) {
  integer(static_cast<int64_t>(text.size()));
  bytes(std::as_bytes(std::span(text)));
}

void Checksum::integer(int64_t value) { XXH3_128bits_update(state_->xxh, &value, sizeof value); }

std::string Checksum::hex() const { return hex_of(XXH3_128bits_digest(state_->xxh)); }

std::string checksum(std::span<const std::byte> bytes) {
  return hex_of(XXH3_128bits(bytes.data(), bytes.size()));
}

FileSum checksum_of_file(const std::filesystem::path& path) {
  const DiskWait wait("reading", path);
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0)
    user_error("{}: cannot read it: {}; check the path", path.string(), std::strerror(errno));
  Checksum sum;
  int64_t bytes = 0;
  std::vector<std::byte> buffer(size_t{1} << 20);
  ssize_t count = 0;
  while ((count = ::read(file, buffer.data(), buffer.size())) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) break;
    sum.bytes(std::span(buffer).first(static_cast<size_t>(count)));
    bytes += count;
    heartbeat();
  }
  const int error = errno;
  ::close(file);
  if (count < 0)
    user_error("{}: cannot read it: {}; check the disk", path.string(), std::strerror(error));
  return {bytes, sum.hex()};
}

void verify_file(const std::filesystem::path& path, const FileSum& expected,
                 std::string_view remedy) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error)
    user_error("{}: missing or unreadable ({}), expected a file of {} bytes; {}", path.string(),
               error.message(), expected.bytes, remedy);
  if (static_cast<int64_t>(size) != expected.bytes)
    user_error("{}: has {} bytes, expected {}; {}", path.string(), size, expected.bytes, remedy);
  const FileSum got = checksum_of_file(path);
  if (got != expected)
    user_error("{}: is damaged: its checksum is {}, expected {}; {}", path.string(), got.xxh128,
               expected.xxh128, remedy);
}

}  // namespace kt
