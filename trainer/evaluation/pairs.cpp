#include "trainer/evaluation/pairs.h"

#include <numeric>

namespace kt {

void Pairs::add_list(int64_t of_user, std::span<const int32_t> items) {
  user.push_back(static_cast<int32_t>(of_user));
  item.insert(item.end(), items.begin(), items.end());
  offsets.push_back(std::ssize(item));
}

std::vector<int32_t> Pairs::users_of(int64_t b) const {
  std::vector<int32_t> users;
  users.reserve(block(b).size());
  for (int64_t list = blocks[b]; list < blocks[b + 1]; ++list)
    users.insert(users.end(), offsets[list + 1] - offsets[list], user[list]);
  return users;
}

Pairs catalogue_of(std::span<const int32_t> users, int64_t items) {
  std::vector<int32_t> all(static_cast<size_t>(items));
  std::iota(all.begin(), all.end(), 0);
  Pairs pairs;
  for (const int32_t user : users) {
    pairs.add_list(user, all);
    pairs.end_block();
  }
  return pairs;
}

}  // namespace kt
