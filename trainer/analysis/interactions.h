#pragma once

#include <nlohmann/json_fwd.hpp>

#include "io/dataset/dataset.h"
#include "trainer/analysis/row_numbers.h"

namespace kt {

/// The rows of a table as they are: counts, labels, durations, repeats, when they were made.
nlohmann::json interactions_of(const RowNumbers& rows);
/// A column of rows, described (trainer/analysis/describe.h).
nlohmann::json column_of(const RowColumn& column);
/// Where the two tables meet: the block of the test table's users and items, and what of it either table holds.
nlohmann::json block_of(const RowNumbers& training, const RowNumbers& test);
/// Rows that the import dropped.
nlohmann::json dropped_rows(const Dataset& dataset);

}  // namespace kt
