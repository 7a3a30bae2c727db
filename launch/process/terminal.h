#pragma once

namespace kt {

/// The terminal on which people watch this process, as a file to write to: stderr, or that of the mpirun that started
/// it, which passes stderr on through a pipe; -1 where there is none.
int terminal();

/// Units: characters of a line of `terminal()`.
int terminal_columns();

}  // namespace kt
