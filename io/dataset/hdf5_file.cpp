#include "io/dataset/hdf5_file.h"

#include <hdf5.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "launch/base/errors.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

/// Locks the library, and keeps it from printing its error stack.
class Library {
 public:
  explicit Library(const std::filesystem::path& path)
      : lock_(library_mutex()), wait_("reading", path) {
    [[maybe_unused]] static const herr_t once = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5Eclear2(H5E_DEFAULT);
  }

 private:
  std::lock_guard<std::mutex> lock_;
  DiskWait wait_;
};

struct Handle {
  Handle(hid_t id_in, herr_t (*close_in)(hid_t)) : id(id_in), close(close_in) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (id >= 0) close(id);
  }
  hid_t id;
  herr_t (*close)(hid_t);
};

struct Cause {
  std::string text;
  bool is_of_system =
      false;  ///< what the system said of a call, which is no fault of the file's bytes
  bool is_lock = false;
};

/// The bottom of the error stack.
Cause cause() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
        if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
        return 0;
      },
      &text);
  Cause cause{.text = text.empty() ? "unknown HDF5 error" : text};
  cause.is_lock = text.find("lock file") != text.npos;
  const std::string_view key = "error message = '";
  if (const auto at = text.find(key); at != std::string::npos) {
    const auto begin = at + key.size();
    cause.text = text.substr(begin, text.find('\'', begin) - begin);
    cause.is_of_system = true;
  }
  return cause;
}

[[noreturn]] void write_failed(const std::filesystem::path& path, std::string_view what) {
  user_error("{}: cannot write {}: {}; free space or mend the permissions, then run again",
             path.string(), what, cause().text);
}

[[noreturn]] void read_failed(const std::filesystem::path& path, std::string_view what) {
  const Cause why = cause();
  if (why.is_lock)
    user_error(
        "{}: cannot read {}: cannot lock it: {}; wait for the process that has it locked, or set "
        "HDF5_USE_FILE_LOCKING=FALSE",
        path.string(), what, why.text);
  if (why.is_of_system)
    user_error("{}: cannot read {}: {}; mend the permissions or the disk, then run again",
               path.string(), what, why.text);
  user_error("{}: cannot read {}: {}; the file is damaged or not one of ours: make it again",
             path.string(), what, why.text);
}

template <class T>
hid_t memory_type();
template <>
hid_t memory_type<uint8_t>() {
  return H5T_NATIVE_UINT8;
}
template <>
hid_t memory_type<int32_t>() {
  return H5T_NATIVE_INT32;
}
template <>
hid_t memory_type<int64_t>() {
  return H5T_NATIVE_INT64;
}
template <>
hid_t memory_type<uint32_t>() {
  return H5T_NATIVE_UINT32;
}
template <>
hid_t memory_type<uint64_t>() {
  return H5T_NATIVE_UINT64;
}
template <>
hid_t memory_type<float>() {
  return H5T_NATIVE_FLOAT;
}
template <>
hid_t memory_type<double>() {
  return H5T_NATIVE_DOUBLE;
}

std::string name_of_type(hid_t type) {
  const size_t bits = 8 * H5Tget_size(type);
  switch (H5Tget_class(type)) {
    case H5T_FLOAT:
      return fmt::format("float{}", bits);
    case H5T_INTEGER:
      return fmt::format("{}int{}", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits);
    default:
      return "another type";
  }
}

constexpr size_t kGrowth =
    size_t{1} << 20;  // zeroed as it is taken, so that it is still in the cache when it is written

hid_t file_access() {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(access, false, true);
#endif
  return access;
}

void write_dataset(hid_t file, const std::filesystem::path& path, const std::string& name,
                   hid_t type, const void* values, std::span<const hsize_t> shape) {
  const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr),
                     H5Sclose);
  const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation.id, false);
  H5Pset_fill_time(creation.id, H5D_FILL_TIME_NEVER);
  const Handle dataset(
      H5Dcreate2(file, name.c_str(), type, space.id, H5P_DEFAULT, creation.id, H5P_DEFAULT),
      H5Dclose);
  if (dataset.id < 0) write_failed(path, name);
  if (std::find(shape.begin(), shape.end(), hsize_t{0}) != shape.end()) return;
  if (H5Dwrite(dataset.id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
    write_failed(path, name);
}

/// An open dataset of the type T and its shape.
struct OpenDataset {
  OpenDataset(hid_t file, const std::filesystem::path& path, const std::string& name)
      : dataset(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose),
        space(dataset.id < 0 ? -1 : H5Dget_space(dataset.id), H5Sclose),
        type(dataset.id < 0 ? -1 : H5Dget_type(dataset.id), H5Tclose) {
    if (dataset.id < 0 || space.id < 0 || type.id < 0) read_failed(path, name);
    const int dimensions = H5Sget_simple_extent_ndims(space.id);
    if (dimensions != 1 && dimensions != 2)
      user_error("{}: {} has {} dimensions, expected 1 or 2; make the file again", path.string(),
                 name, dimensions);
    shape.resize(static_cast<size_t>(dimensions));
    H5Sget_simple_extent_dims(space.id, shape.data(), nullptr);
  }
  void expect_type(const std::filesystem::path& path, const std::string& name, hid_t wanted) const {
    if (H5Tequal(type.id, wanted) <= 0)
      user_error("{}: {} holds {}, expected {}; make the file again", path.string(), name,
                 name_of_type(type.id), name_of_type(wanted));
  }
  Handle dataset, space, type;
  std::vector<hsize_t> shape;
};

void write_attribute_of(hid_t file, const std::filesystem::path& path, const std::string& name,
                        hid_t type, hid_t space, const void* value) {
  const Handle attribute(H5Acreate2(file, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT),
                         H5Aclose);
  if (attribute.id < 0 || H5Awrite(attribute.id, type, value) < 0)
    write_failed(path, "attribute " + name);
}

template <class T>
T read_scalar_attribute(hid_t file, const std::filesystem::path& path, const std::string& name) {
  const Library library(path);
  const Handle attribute(H5Aopen(file, name.c_str(), H5P_DEFAULT), H5Aclose);
  T value{};
  if (attribute.id < 0 || H5Aread(attribute.id, memory_type<T>(), &value) < 0)
    read_failed(path, "attribute " + name);
  return value;
}

}  // namespace

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  const Library library(path);
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fapl_core(access.id, kGrowth, /*backing_store=*/false);
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, access.id);
  if (file < 0) write_failed(path, "a new file");
  return {path, file};
}

Hdf5File Hdf5File::open(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path))
    user_error("{}: no such file; expected an HDF5 file", path.string());
  const Library library(path);
  const Handle access(file_access(), H5Pclose);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id);
  if (file < 0) read_failed(path, "it as HDF5");
  return {path, file};
}

Hdf5File::Hdf5File(Hdf5File&& other) noexcept
    : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}

Hdf5File::~Hdf5File() {
  if (file_ < 0) return;
  const Library library(path_);
  H5Fclose(file_);
}

FileSum Hdf5File::close(Sync sync) {
  KT_CHECK(file_ >= 0, "{} is closed already", path_.string());
  std::unique_lock<std::mutex> lock(library_mutex());
  void* memory = nullptr;
  const bool flushed = H5Fflush(file_, H5F_SCOPE_LOCAL) >= 0;
  // The length of the image ends with the last allocated byte; the buffer itself grows in larger
  // steps.
  const ssize_t size = flushed ? H5Fget_file_image(file_, nullptr, 0) : -1;
  if (size < 0 || H5Fget_vfd_handle(file_, H5P_DEFAULT, &memory) < 0)
    write_failed(path_, "its contents");
  // The handle of a file in memory is the address of its buffer's address.
  const std::span bytes(*static_cast<const std::byte* const*>(memory), static_cast<size_t>(size));
  lock.unlock();
  FileSum sum{int64_t{size}, checksum(bytes)};
  write_new_file(path_, bytes, sync);
  lock.lock();
  H5Fclose(std::exchange(file_, -1));
  return sum;
}

template <class T>
void Hdf5File::write(const std::string& name, std::span<const T> values) {
  const Library library(path_);
  const hsize_t shape[] = {values.size()};
  write_dataset(file_, path_, name, memory_type<T>(), values.data(), shape);
}

template <class T>
void Hdf5File::write(const std::string& name, std::span<const T> values, int64_t rows,
                     int64_t columns) {
  KT_CHECK(static_cast<int64_t>(values.size()) == rows * columns, "{}: {} values for {} x {}", name,
           values.size(), rows, columns);
  const Library library(path_);
  const hsize_t shape[] = {static_cast<hsize_t>(rows), static_cast<hsize_t>(columns)};
  write_dataset(file_, path_, name, memory_type<T>(), values.data(), shape);
}

void Hdf5File::write_strings(const std::string& name, std::span<const std::string> values) {
  std::vector<int64_t> offsets(values.size() + 1, 0);
  for (size_t i = 0; i < values.size(); ++i)
    offsets[i + 1] = offsets[i] + static_cast<int64_t>(values[i].size());
  std::vector<uint8_t> bytes;
  bytes.reserve(static_cast<size_t>(offsets.back()));
  for (const std::string& value : values) bytes.insert(bytes.end(), value.begin(), value.end());
  write(name + ".bytes", bytes);
  write(name + ".offsets", offsets);
}

void Hdf5File::write_attribute(const std::string& name, int64_t value) {
  const Library library(path_);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  write_attribute_of(file_, path_, name, H5T_NATIVE_INT64, space.id, &value);
}

void Hdf5File::write_attribute(const std::string& name, double value) {
  const Library library(path_);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  write_attribute_of(file_, path_, name, H5T_NATIVE_DOUBLE, space.id, &value);
}

void Hdf5File::write_attribute(const std::string& name, std::string_view value) {
  const Library library(path_);
  const hsize_t size = value.size();
  const Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose);
  write_attribute_of(file_, path_, name, H5T_NATIVE_UINT8, space.id, value.data());
}

bool Hdf5File::has(const std::string& name) const {
  const Library library(path_);
  return H5Lexists(file_, name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> Hdf5File::names() const {
  const Library library(path_);
  std::vector<std::string> names;
  const herr_t status = H5Literate(
      file_, H5_INDEX_NAME, H5_ITER_INC, nullptr,
      [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
        static_cast<std::vector<std::string>*>(out)->push_back(name);
        return 0;
      },
      &names);
  if (status < 0) read_failed(path_, "the list of datasets");
  return names;
}

std::vector<int64_t> Hdf5File::shape(const std::string& name) const {
  const Library library(path_);
  const OpenDataset open(file_, path_, name);
  return {open.shape.begin(), open.shape.end()};
}

std::string Hdf5File::type_name(const std::string& name) const {
  const Library library(path_);
  return name_of_type(OpenDataset(file_, path_, name).type.id);
}

template <class T>
std::vector<T> Hdf5File::read(const std::string& name) const {
  const Library library(path_);
  const OpenDataset open(file_, path_, name);
  open.expect_type(path_, name, memory_type<T>());
  hsize_t size = 1;
  for (const hsize_t extent : open.shape) size *= extent;
  std::vector<T> values(size);
  if (size > 0 &&
      H5Dread(open.dataset.id, memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
    read_failed(path_, name);
  return values;
}

template <class T>
void Hdf5File::read_rows(const std::string& name, int64_t begin, int64_t end,
                         std::span<T> out) const {
  const Library library(path_);
  const OpenDataset open(file_, path_, name);
  open.expect_type(path_, name, memory_type<T>());
  const int64_t rows = static_cast<int64_t>(open.shape[0]);
  if (begin < 0 || begin > end || end > rows)
    user_error("{}: rows [{}, {}) of {} asked for, the file has {}; make the file again",
               path_.string(), begin, end, name, rows);
  std::vector<hsize_t> start(open.shape.size(), 0), count = open.shape;
  start[0] = static_cast<hsize_t>(begin);
  count[0] = static_cast<hsize_t>(end - begin);
  hsize_t size = 1;
  for (const hsize_t extent : count) size *= extent;
  KT_CHECK(out.size() == size, "{}: room for {} values, {} to read", name, out.size(), size);
  if (size == 0) return;
  const Handle memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr),
                      H5Sclose);
  if (H5Sselect_hyperslab(open.space.id, H5S_SELECT_SET, start.data(), nullptr, count.data(),
                          nullptr) < 0 ||
      H5Dread(open.dataset.id, memory_type<T>(), memory.id, open.space.id, H5P_DEFAULT,
              out.data()) < 0)
    read_failed(path_, name);
}

std::vector<std::string> Hdf5File::read_strings(const std::string& name) const {
  const auto bytes = read<uint8_t>(name + ".bytes");
  const auto offsets = read<int64_t>(name + ".offsets");
  const auto size = static_cast<int64_t>(bytes.size());
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != size ||
      !std::is_sorted(offsets.begin(), offsets.end()))
    user_error("{}: the offsets of the strings {} do not fit their {} bytes; make the file again",
               path_.string(), name, size);
  std::vector<std::string> values(offsets.size() - 1);
  for (size_t i = 0; i < values.size(); ++i)
    values[i].assign(bytes.begin() + offsets[i], bytes.begin() + offsets[i + 1]);
  return values;
}

bool Hdf5File::has_attribute(const std::string& name) const {
  const Library library(path_);
  return H5Aexists(file_, name.c_str()) > 0;
}

int64_t Hdf5File::read_int_attribute(const std::string& name) const {
  return read_scalar_attribute<int64_t>(file_, path_, name);
}

double Hdf5File::read_double_attribute(const std::string& name) const {
  return read_scalar_attribute<double>(file_, path_, name);
}

std::string Hdf5File::read_string_attribute(const std::string& name) const {
  const Library library(path_);
  const Handle attribute(H5Aopen(file_, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (attribute.id < 0) read_failed(path_, "attribute " + name);
  const Handle space(H5Aget_space(attribute.id), H5Sclose);
  std::string value(
      static_cast<size_t>(std::max<hssize_t>(0, H5Sget_simple_extent_npoints(space.id))), '\0');
  if (!value.empty() && H5Aread(attribute.id, H5T_NATIVE_UINT8, value.data()) < 0)
    read_failed(path_, "attribute " + name);
  return value;
}

#define KT_INSTANTIATE(T)                                                                     \
  template void Hdf5File::write<T>(const std::string&, std::span<const T>);                   \
  template void Hdf5File::write<T>(const std::string&, std::span<const T>, int64_t, int64_t); \
  template std::vector<T> Hdf5File::read<T>(const std::string&) const;                        \
  template void Hdf5File::read_rows<T>(const std::string&, int64_t, int64_t, std::span<T>) const;
KT_INSTANTIATE(uint8_t)
KT_INSTANTIATE(int32_t)
KT_INSTANTIATE(int64_t)
KT_INSTANTIATE(uint32_t)
KT_INSTANTIATE(uint64_t)
KT_INSTANTIATE(float)
KT_INSTANTIATE(double)
#undef KT_INSTANTIATE

}  // namespace kt
