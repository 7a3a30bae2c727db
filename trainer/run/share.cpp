#include "trainer/run/share.h"

namespace kt {

std::string share_text(std::string text, int root, Communicator& comm) {
  auto size = static_cast<int64_t>(text.size());
  comm.broadcast(std::span(&size, 1), root);
  text.resize(size);
  comm.broadcast(text.data(), size, DataType::kUint8, root);
  return text;
}

std::vector<std::string> gather_texts(const std::string& text, Communicator& comm) {
  const int size = comm.world().size;
  const auto own = static_cast<int64_t>(text.size());
  std::vector<int64_t> sizes(size);
  comm.all_gather<int64_t>(std::span(&own, 1), sizes, std::vector<int64_t>(size, 1));
  const std::vector<uint8_t> bytes(text.begin(), text.end());
  std::vector<uint8_t> all(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}));
  comm.all_gather<uint8_t>(bytes, all, sizes);
  std::vector<std::string> texts;
  auto from = all.begin();
  for (const int64_t length : sizes) {
    texts.emplace_back(from, from + length);
    from += length;
  }
  return texts;
}

}  // namespace kt
