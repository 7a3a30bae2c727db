#pragma once

#include <filesystem>
#include <string_view>

namespace kt {

/// A file that comes with the program, as `configs/ncf.yaml`: beside the program, in a folder above it, or in the tree
/// it was built from. Throws: UserError with `what` it is and the `remedy` when it is in none of them.
std::filesystem::path shipped_file(const std::filesystem::path& relative, std::string_view what,
                                   std::string_view remedy);

}  // namespace kt
