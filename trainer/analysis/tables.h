#pragma once

#include <nlohmann/json_fwd.hpp>

#include "io/dataset/dataset.h"
#include "launch/base/parallel_for.h"
#include "trainer/analysis/row_numbers.h"

namespace kt {

/// A table of rows: {rows, columns, head, describe, missing}.
nlohmann::json row_table_of(const Dataset& dataset, const RowNumbers& rows, const IdTables& ids);

/// Each side table of the official layout by its file's name: {rows, columns, head, describe, texts, missing}, or
/// {absent}. Numbers are described, texts counted; missing are empty cells and, in kuairec_caption_category.csv, the
/// category -124.
nlohmann::json side_tables_of(const Dataset& dataset, const IdTables& ids, ThreadPool& pool);

}  // namespace kt
