#pragma once

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "launch/base/errors.h"
#include "launch/collectives/communicator.h"
#include "launch/collectives/part_offsets.h"
#include "trainer/planning/plan.h"

/// Many ranks in one process, a thread each, that send one another the messages which docs/plan.md says a collective is
/// made of, and count them.
namespace kt {

/// Messages under way between ranks.
class Mail {
 public:
  using Message = std::vector<std::byte>;
  explicit Mail(int ranks) : boxes_(ranks) {}

  void send(int from, int to, Message message) {
    Box& box = boxes_[to];
    const std::lock_guard lock(box.mutex);
    box.messages[from].push_back(std::move(message));
    box.arrived.notify_one();
  }
  Message receive(int from, int to) {
    Box& box = boxes_[to];
    std::unique_lock lock(box.mutex);
    std::deque<Message>& messages = box.messages[from];
    box.arrived.wait(lock, [&] { return box.given_up || !messages.empty(); });
    if (messages.empty()) throw PeerError("a rank of this test ended early");
    Message first = std::move(messages.front());
    messages.pop_front();
    return first;
  }
  bool empty() const {
    return std::ranges::all_of(boxes_, [](const Box& box) {
      return std::ranges::all_of(box.messages,
                                 [](const auto& each) { return each.second.empty(); });
    });
  }
  /// Nobody waits any longer.
  void give_up() {
    for (Box& box : boxes_) {
      const std::lock_guard lock(box.mutex);
      box.given_up = true;
      box.arrived.notify_one();
    }
  }

 private:
  struct Box {  // of one rank
    std::mutex mutex;
    std::condition_variable arrived;
    std::map<int, std::deque<Message>> messages;  // by sender
    bool given_up = false;
  };
  std::vector<Box> boxes_;
};

/// One rank, `a_host` of which are on each host. The number of ranks is a power of two.
class PlayedRank : public Communicator {
 public:
  struct Call {
    std::string operation;
    Traffic traffic{};
    int64_t rounds = 0;  ///< how often the rank waited for messages
  };
  PlayedRank(Mail& mail, World world, int a_host) : mail_(mail), world_(world), a_host_(a_host) {
    KT_CHECK(std::has_single_bit(static_cast<unsigned>(world.size)), "{} ranks", world.size);
  }
  std::vector<Call> calls;

  World world() const override { return world_; }
  std::string host() const { return std::to_string(host_of(world_.rank)); }

  void all_reduce(const void* in, void* out, int64_t count, DataType type, Reduction reduction,
                  Stream) override {
    calls.push_back({"all_reduce"});
    const int64_t element = size_in_bytes(type);
    if (in != out) std::memcpy(out, in, static_cast<size_t>(count * element));
    auto* data = static_cast<std::byte*>(out);
    if (count * element < 10'000) {
      for (int distance = 1; distance < world_.size; distance *= 2) {
        const int peer = world_.rank ^ distance;
        send(peer, data, count * element);
        reduce_into(data, wait_for(peer), type, reduction);
      }
      return;
    }
    // Every part goes round once to be summed and once more to be known.
    const auto begin_of = [&](int part) {
      part = (part + 2 * world_.size) % world_.size;
      return data + count * part / world_.size * element;
    };
    const auto bytes_of = [&](int part) {
      part = (part + 2 * world_.size) % world_.size;
      return (count * (part + 1) / world_.size - count * part / world_.size) * element;
    };
    for (int round = 0; round < 2 * (world_.size - 1); ++round) {
      const int sent = world_.rank - round, got = sent - 1;
      send(next(), begin_of(sent), bytes_of(sent));
      const Mail::Message message = wait_for(previous());
      if (round < world_.size - 1)
        reduce_into(begin_of(got), message, type, reduction);
      else
        std::ranges::copy(message, begin_of(got));
    }
  }

  void all_gather(const void* in, void* out, std::span<const int64_t> counts, DataType type,
                  Stream) override {
    calls.push_back({"all_gather"});
    const int64_t element = size_in_bytes(type);
    const std::vector<int64_t> begin = part_offsets(counts);
    const auto part_of = [&](int rank) { return (rank + world_.size) % world_.size; };
    auto* data = static_cast<std::byte*>(out);
    std::copy_n(static_cast<const std::byte*>(in), counts[world_.rank] * element,
                data + begin[world_.rank] * element);
    for (int round = 0; round + 1 < world_.size; ++round) {
      const int sent = part_of(world_.rank - round), got = part_of(world_.rank - round - 1);
      send(next(), data + begin[sent] * element, counts[sent] * element);
      std::ranges::copy(wait_for(previous()), data + begin[got] * element);
    }
  }

  void all_to_all(const void* in, std::span<const int64_t> send_counts, void* out,
                  std::span<const int64_t> receive_counts, DataType type, Stream) override {
    calls.push_back({"all_to_all"});
    const int64_t element = size_in_bytes(type);
    const std::vector<int64_t> send_begin = part_offsets(send_counts),
                               receive_begin = part_offsets(receive_counts);
    const auto* from = static_cast<const std::byte*>(in);
    auto* to = static_cast<std::byte*>(out);
    const auto own = static_cast<size_t>(world_.rank);
    std::copy_n(from + send_begin[own] * element, send_counts[own] * element,
                to + receive_begin[own] * element);
    for (int peer = 0; peer < world_.size; ++peer)
      if (peer != world_.rank && send_counts[peer] > 0)
        send(peer, from + send_begin[peer] * element, send_counts[peer] * element);
    // All of them are under way at once: waited for together.
    for (int peer = 0; peer < world_.size; ++peer)
      if (peer != world_.rank && receive_counts[peer] > 0)
        std::ranges::copy(receive(peer), to + receive_begin[peer] * element), last().rounds = 1;
  }

  void barrier() override {
    calls.push_back({"barrier"});
    for (int distance = 1; distance < world_.size; distance *= 2) {
      send((world_.rank + distance) % world_.size, nullptr, 0);
      wait_for((world_.rank + world_.size - distance) % world_.size);
    }
  }

  void reduce_scatter(const void*, void*, int64_t, DataType, Reduction, Stream) override {
    bug("reduce_scatter");
  }
  void broadcast(void*, int64_t, DataType, int, Stream) override { bug("broadcast"); }
  void synchronize(Stream) override { bug("synchronize"); }
  using Communicator::all_reduce;

 private:
  [[noreturn]] static void bug(const char* operation) {
    throw BugError(std::string("no step calls ") + operation);
  }
  int host_of(int rank) const { return rank / a_host_; }
  bool is_remote(int peer) const { return host_of(peer) != host_of(world_.rank); }
  int next() const { return (world_.rank + 1) % world_.size; }
  int previous() const { return (world_.rank + world_.size - 1) % world_.size; }
  Call& last() { return calls.back(); }

  void send(int peer, const std::byte* from, int64_t bytes) {
    Traffic& t = last().traffic;
    t.messages += 1;
    t.sent_bytes += static_cast<double>(bytes);
    if (is_remote(peer)) t.remote_messages += 1, t.remote_sent_bytes += static_cast<double>(bytes);
    mail_.send(world_.rank, peer, Mail::Message(from, from + bytes));
  }
  Mail::Message receive(int peer) {
    Mail::Message message = mail_.receive(peer, world_.rank);
    const auto bytes = static_cast<double>(message.size());
    last().traffic.received_bytes += bytes;
    if (is_remote(peer)) last().traffic.remote_received_bytes += bytes;
    return message;
  }
  /// Before anything else is sent.
  Mail::Message wait_for(int peer) {
    ++last().rounds;
    return receive(peer);
  }

  template <class T>
  static void reduce_as(std::byte* into, const Mail::Message& from, Reduction reduction) {
    for (size_t at = 0; at < from.size(); at += sizeof(T)) {
      T a, b;
      std::memcpy(&a, into + at, sizeof(T));
      std::memcpy(&b, from.data() + at, sizeof(T));
      a = reduction == Reduction::kSum   ? static_cast<T>(a + b)
          : reduction == Reduction::kMax ? std::max(a, b)
                                         : std::min(a, b);
      std::memcpy(into + at, &a, sizeof(T));
    }
  }
  static void reduce_into(std::byte* into, const Mail::Message& from, DataType type,
                          Reduction reduction) {
    switch (type) {
      case DataType::kInt32:
        return reduce_as<int32_t>(into, from, reduction);
      case DataType::kInt64:
        return reduce_as<int64_t>(into, from, reduction);
      case DataType::kFloat32:
        return reduce_as<float>(into, from, reduction);
      case DataType::kFloat64:
        return reduce_as<double>(into, from, reduction);
      default:
        bug("all_reduce of this type");
    }
  }

  Mail& mail_;
  const World world_;
  const int a_host_;
};

/// What `work(rank)` counted on each of `ranks` ranks. Throws: what a rank threw.
inline std::vector<std::vector<PlayedRank::Call>> play_ranks(
    int ranks, int a_host, const std::function<void(PlayedRank& comm)>& work) {
  Mail mail(ranks);
  std::vector<std::vector<PlayedRank::Call>> calls(ranks);
  std::vector<std::exception_ptr> errors(ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        PlayedRank comm(mail, {rank, ranks}, a_host);
        work(comm);
        calls[rank] = std::move(comm.calls);
      } catch (...) {
        errors[rank] = std::current_exception();
        mail.give_up();
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  KT_CHECK(mail.empty(), "messages that nobody received");
  return calls;
}

}  // namespace kt
