#include "io/dataset/import.h"

#include "io/dataset/dataset.h"
#include "tests/fuzz/target.h"

namespace kt {
namespace {

/// Parts: letters (k: keep duplicates; s: skip malformed rows; q: no quotes; h: no header), the column map, the
/// delimiter, the table, the test table (empty: none).
void run(const std::vector<std::string>& parts) {
  const auto out = fuzz::folder() / "dataset";
  ImportOptions options;
  options.source = fuzz::write("train.csv", parts[3]);
  options.out = out;
  options.shards = 2;
  options.threads = 1;
  if (parts[0].find('q') != parts[0].npos) options.dialect.quotes = Quotes::kNone;
  if (parts[0].find('h') != parts[0].npos) options.dialect.header = Header::kNone;
  if (!parts[4].empty()) options.test = fuzz::write("test.csv", parts[4]);
  if (parts[0].find('k') != parts[0].npos) options.duplicates = Duplicates::kKeep;
  if (parts[0].find('s') != parts[0].npos) options.on_fault = OnFault::kSkip;
  options.assign_users = [](std::span<const int64_t> rows, int64_t shards) {
    std::vector<int32_t> shard(rows.size());
    for (size_t user = 0; user < rows.size(); ++user)
      shard[user] = static_cast<int32_t>(static_cast<int64_t>(user) % shards);
    return shard;
  };
  const bool done = fuzz::accepted([&] {
    options.dialect.delimiter = parse_delimiter(parts[2]);
    options.map = parse_column_map(parts[1], options.dialect.header);
    const ImportReport report = import_dataset(options);
    KT_CHECK(report.rows > 0 && report.rows <= report.rows_read);
    // What an import made can be read.
    const Dataset dataset = Dataset::open(out);
    dataset.verify();
    const IdTables ids = dataset.read_ids();
    int64_t rows = 0;
    for (int64_t shard = 0; shard < dataset.shards(); ++shard)
      rows += dataset.read_shard(shard).size();
    KT_CHECK(rows == report.rows && static_cast<int64_t>(ids.user_id.size()) == report.users);
    if (options.test) KT_CHECK(dataset.read_test().users.size() > 0);
  });
  KT_CHECK(std::filesystem::exists(out) == done, "a data set is whole or not there");
  std::filesystem::remove_all(out);
}

}  // namespace
}  // namespace kt

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kt::run(kt::fuzz::parts(data, size, 5));
  return 0;
}
