#include "io/files/shipped_file.h"

#include <system_error>

#include "launch/base/errors.h"

namespace kt {

namespace fs = std::filesystem;

fs::path shipped_file(const fs::path& relative, std::string_view what, std::string_view remedy) {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  // The program lies in build/<preset> of the tree, or wherever its folder was copied to.
  fs::path folder = program.parent_path();
  for (int level = 0; level < 3 && !folder.empty(); ++level, folder = folder.parent_path())
    if (fs::is_regular_file(folder / relative, ignored)) return folder / relative;
  const fs::path source = fs::path(KT_SOURCE_DIR) / relative;
  if (fs::is_regular_file(source, ignored)) return source;
  user_error("{}: got no such file beside {} nor in the folders above it, expected {}; {}",
             relative.string(), program.string(), what, remedy);
}

}  // namespace kt
