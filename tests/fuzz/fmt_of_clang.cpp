#include <fmt/format.h>

// clang 14 spells this symbol otherwise than GCC, which built the library.
template void fmt::detail::vformat_to<char>(fmt::detail::buffer<char>&, fmt::string_view,
                                            fmt::format_args, fmt::detail::locale_ref);
