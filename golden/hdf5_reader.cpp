#include <algorithm>
#include <set>
#include <vector>

#include "golden/golden_file.h"
#include "golden/hdf5_handle.h"
#include "golden/raw_file.h"
#include "reference/core/error.h"

namespace attn::golden {
namespace {

constexpr int kMaxRank = 8;
constexpr int kMaxDepth = 4;

/// Reads one file; every check that guards an allocation or a read is in here.
class Reader {
 public:
  Reader(const std::string& path, std::uint64_t file_bytes)
      : path_(path), file_bytes_(file_bytes), budget_(file_bytes * kMaxExpansion) {}

  RawFile read();

 private:
  [[noreturn]] void fail(const std::string& where, const std::string& what) const {
    throw Error(ErrorKind::kInput,
                printable(path_) + ": " + (where.empty() ? "" : printable(where) + ": ") + what,
                where);
  }
  [[noreturn]] void fail_hdf5(const std::string& where, const std::string& what) const {
    const std::string detail = hdf5_error();
    fail(where, what + (detail.empty() ? "" : " (HDF5: " + detail + ")"));
  }
  void check(bool ok, const std::string& where, const std::string& what) const {
    if (!ok) fail_hdf5(where, what);
  }

  Handle open_file() const;
  std::string text_attribute(hid_t object, const std::string& where, const char* name,
                             bool required) const;
  void read_version(hid_t file) const;
  void read_group(hid_t group, const std::string& prefix, int depth, RawFile& out);
  void read_link(hid_t group, const std::string& name, const std::string& path, int depth,
                 RawFile& out);
  RawDataset read_dataset(hid_t dataset, const std::string& path);
  Shape dataset_shape(hid_t dataset, const std::string& path) const;
  Handle own_layout(hid_t dataset, const std::string& path) const;
  void check_storage(hid_t dataset, hid_t plist, const std::string& path, std::uint64_t bytes);
  void check_filters(hid_t plist, const std::string& path, std::size_t element_bytes) const;

  std::string path_;
  std::uint64_t file_bytes_;
  std::uint64_t budget_;  ///< bytes that datasets may still take
  std::set<haddr_t> visited_;
};

Handle Reader::open_file() const {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  check(access.valid(), "", "the HDF5 library failed to start");
#if H5_VERSION_GE(1, 10, 8)
  // Locks fail on network and read-only file systems, and a reader does not need them.
  H5Pset_file_locking(access, false, true);
#endif
  Handle file(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access), H5Fclose);
  check(file.valid(), "", "not a readable HDF5 file");
  return file;
}

std::string Reader::text_attribute(hid_t object, const std::string& where, const char* name,
                                   bool required) const {
  const std::string field = (where.empty() ? "attribute " : where + ": attribute ") + name;
  const htri_t exists = H5Aexists(object, name);
  check(exists >= 0, field, "cannot be looked up");
  if (exists == 0) {
    if (required) fail(field, "is missing; is this a golden file?");
    return "";
  }
  Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  check(attribute.valid(), field, "cannot be opened");
  Handle type(H5Aget_type(attribute), H5Tclose);
  Handle space(H5Aget_space(attribute), H5Sclose);
  check(type.valid() && space.valid(), field, "cannot be read");
  if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1) {
    fail(field, "must be one string");
  }
  if (H5Tis_variable_str(type) > 0) {
    char* text = nullptr;
    Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(memory, H5T_VARIABLE);
    H5Tset_cset(memory, H5Tget_cset(type));
    check(H5Aread(attribute, memory, &text) >= 0, field, "cannot be read");
    std::string result = text == nullptr ? "" : text;
    H5free_memory(text);
    return result;
  }
  const std::size_t size = H5Tget_size(type);
  if (size == 0 || size > file_bytes_) fail(field, "claims more bytes than the file has");
  std::string result(size, '\0');
  check(H5Aread(attribute, type, result.data()) >= 0, field, "cannot be read");
  result.resize(std::min(result.find('\0'), result.size()));
  return result;
}

void Reader::read_version(hid_t file) const {
  const std::string format = text_attribute(file, "", "format", true);
  if (format != kFormatName) {
    fail("attribute format", "is \"" + printable(format) + "\", must be \"" + kFormatName + "\"");
  }
  const std::string field = "attribute format_version";
  Handle attribute(H5Aopen(file, "format_version", H5P_DEFAULT), H5Aclose);
  check(attribute.valid(), field, "is missing");
  Handle type(H5Aget_type(attribute), H5Tclose);
  Handle space(H5Aget_space(attribute), H5Sclose);
  if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1) {
    fail(field, "must be one integer");
  }
  std::int64_t version = 0;
  check(H5Aread(attribute, H5T_NATIVE_INT64, &version) >= 0, field, "cannot be read");
  if (version < 1 || version > kFormatVersion) {
    fail(field, "is " + std::to_string(version) + ", this program reads versions 1 to " +
                    std::to_string(kFormatVersion) + "; use a newer one");
  }
}

struct LinkNames {
  std::vector<std::string> names;
  bool failed = false;
};

extern "C" herr_t collect_name(hid_t, const char* name, const H5L_info_t*, void* data) {
  auto& out = *static_cast<LinkNames*>(data);
  try {  // an exception must not pass through the C library
    out.names.emplace_back(name);
    return 0;
  } catch (...) {
    out.failed = true;
    return -1;
  }
}

void Reader::read_group(hid_t group, const std::string& prefix, int depth, RawFile& out) {
  LinkNames links;
  hsize_t start = 0;
  check(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, &start, collect_name, &links) >= 0 &&
            !links.failed,
        prefix.empty() ? "/" : prefix, "the group cannot be listed");
  const std::string folder = prefix.empty() ? "" : prefix + "/";
  for (const std::string& name : links.names) read_link(group, name, folder + name, depth, out);
}

void Reader::read_link(hid_t group, const std::string& name, const std::string& path, int depth,
                       RawFile& out) {
  H5L_info_t link{};
  check(H5Lget_info(group, name.c_str(), &link, H5P_DEFAULT) >= 0, path, "cannot be looked up");
  if (link.type == H5L_TYPE_SOFT) fail(path, "is a soft link; golden files hold datasets only");
  if (link.type != H5L_TYPE_HARD)
    fail(path, "is an external link; golden files hold datasets only");
  if (!visited_.insert(link.u.address).second) fail(path, "is a second link to the same object");
  Handle object(H5Oopen(group, name.c_str(), H5P_DEFAULT), H5Oclose);
  check(object.valid(), path, "cannot be opened");
  switch (H5Iget_type(object)) {
    case H5I_GROUP:
      if (depth >= kMaxDepth) fail(path, "groups are nested too deeply");
      read_group(object, path, depth + 1, out);
      return;
    case H5I_DATASET:
      out.datasets[path] = read_dataset(object, path);
      return;
    default:
      fail(path, "is neither a group nor a dataset");
  }
}

Shape Reader::dataset_shape(hid_t dataset, const std::string& path) const {
  Handle space(H5Dget_space(dataset), H5Sclose);
  check(space.valid(), path, "has no readable shape");
  switch (H5Sget_simple_extent_type(space)) {
    case H5S_SCALAR:
      return {};
    case H5S_SIMPLE:
      break;
    default:
      fail(path, "has no shape");
  }
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank < 1 || rank > kMaxRank) {
    fail(path, "has " + std::to_string(rank) + " axes; at most " + std::to_string(kMaxRank) +
                   " are read");
  }
  std::vector<hsize_t> dims(static_cast<std::size_t>(rank));
  check(H5Sget_simple_extent_dims(space, dims.data(), nullptr) == rank, path,
        "has no readable shape");
  Shape shape;
  for (const hsize_t dim : dims) {
    if (dim > INT64_MAX) fail(path, "has an axis longer than 2^63");
    shape.push_back(static_cast<std::int64_t>(dim));
  }
  return shape;
}

/// IEEE binary16 has no predefined HDF5 type in the versions we support.
bool is_float16(hid_t type) {
  std::size_t sign = 0, exponent = 0, exponent_bits = 0, mantissa = 0, mantissa_bits = 0;
  return H5Tget_size(type) == 2 && H5Tget_order(type) == H5T_ORDER_LE &&
         H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &mantissa_bits) >= 0 &&
         sign == 15 && exponent == 10 && exponent_bits == 5 && mantissa == 0 &&
         mantissa_bits == 10 && H5Tget_ebias(type) == 15 && H5Tget_norm(type) == H5T_NORM_IMPLIED;
}

/// numpy's name of a stored little-endian type, "" for anything else.
std::string storage_name(hid_t type) {
  struct Known {
    hid_t type;
    const char* name;
  };
  const Known known[] = {{H5T_IEEE_F64LE, "float64"}, {H5T_IEEE_F32LE, "float32"},
                         {H5T_STD_I64LE, "int64"},    {H5T_STD_I32LE, "int32"},
                         {H5T_STD_U32LE, "uint32"},   {H5T_STD_U16LE, "uint16"},
                         {H5T_STD_U8LE, "uint8"}};
  for (const Known& k : known) {
    if (H5Tequal(type, k.type) > 0) return k.name;
  }
  return H5Tget_class(type) == H5T_FLOAT && is_float16(type) ? "float16" : "";
}

/// Name of the type that holds an element's bits on disk: its own for IEEE and integer types.
std::string storage_of(ElementType type) {
  switch (type) {
    case ElementType::kBFloat16:
      return "uint16";
    case ElementType::kFloat8E4M3FN:
    case ElementType::kFloat8E4M3FNUZ:
    case ElementType::kFloat8E5M2:
    case ElementType::kFloat4E2M1FN:
    case ElementType::kFloat8E8M0FNU:
      return "uint8";
    default:
      return std::string(element_name(type));
  }
}

void Reader::check_filters(hid_t plist, const std::string& path, std::size_t element_bytes) const {
  hsize_t dims[H5S_MAX_RANK] = {};
  const int rank = H5Pget_chunk(plist, H5S_MAX_RANK, dims);
  check(rank > 0, path, "has no readable chunk shape");
  std::uint64_t bytes = element_bytes;
  for (int axis = 0; axis < rank; ++axis) {
    if (dims[axis] == 0 || __builtin_mul_overflow(bytes, dims[axis], &bytes) || bytes > budget_) {
      fail(path, "has chunks larger than " + std::to_string(kMaxExpansion) + " times the file");
    }
  }
  const int count = H5Pget_nfilters(plist);
  check(count >= 0, path, "has no readable filters");
  for (unsigned i = 0; i < static_cast<unsigned>(count); ++i) {
    unsigned flags = 0;
    std::size_t num_values = 0;
    const H5Z_filter_t id =
        H5Pget_filter2(plist, i, &flags, &num_values, nullptr, 0, nullptr, nullptr);
    if (id != H5Z_FILTER_DEFLATE && id != H5Z_FILTER_SHUFFLE && id != H5Z_FILTER_FLETCHER32) {
      fail(path, "uses filter " + std::to_string(id) +
                     "; only deflate, shuffle and fletcher32 are read, try h5repack -f NONE");
    }
  }
}

/// The dataset's creation properties, once they say that its data lies in this file. Comes before
/// any other question to the library, which opens a virtual dataset's sources to answer some.
Handle Reader::own_layout(hid_t dataset, const std::string& path) const {
  Handle plist(H5Dget_create_plist(dataset), H5Pclose);
  check(plist.valid(), path, "has no readable layout");
  if (H5Pget_external_count(plist) != 0) fail(path, "keeps its data in another file");
  if (H5Pget_layout(plist) == H5D_VIRTUAL) {
    fail(path, "is a virtual dataset; golden files hold their own data");
  }
  return plist;
}

void Reader::check_storage(hid_t dataset, hid_t plist, const std::string& path,
                           std::uint64_t bytes) {
  const H5D_layout_t layout = H5Pget_layout(plist);
  const std::uint64_t stored = H5Dget_storage_size(dataset);
  if (stored > file_bytes_) fail(path, "claims more bytes than the file has");
  if (bytes > 0 && stored == 0) fail(path, "was never written");
  if (layout == H5D_CHUNKED) {
    Handle type(H5Dget_type(dataset), H5Tclose);
    check_filters(plist, path, H5Tget_size(type));
  } else if (stored != bytes) {
    fail(path, "has " + std::to_string(stored) + " bytes stored, its shape needs " +
                   std::to_string(bytes));
  }
  if (layout == H5D_CONTIGUOUS && bytes > 0) {
    // Past the end of the file the library would hand out zeros.
    const haddr_t offset = H5Dget_offset(dataset);
    if (offset == HADDR_UNDEF || offset > file_bytes_ || bytes > file_bytes_ - offset) {
      fail(path, "lies beyond the end of the file");
    }
  }
  if (bytes > budget_) {
    fail(path, "is larger than " + std::to_string(kMaxExpansion) +
                   " times the file; if it is meant, write it without compression");
  }
  budget_ -= bytes;
}

RawDataset Reader::read_dataset(hid_t dataset, const std::string& path) {
  RawDataset out;
  Handle plist = own_layout(dataset, path);
  const Shape shape = dataset_shape(dataset, path);
  Handle type(H5Dget_type(dataset), H5Tclose);
  check(type.valid(), path, "has no readable type");
  out.sha256 = text_attribute(dataset, path, "sha256", false);

  const std::string storage = storage_name(type);
  if (storage.empty()) {
    out.problem = "its type is not a little-endian float64, float32, float16 or integer";
    return out;
  }
  std::string name = text_attribute(dataset, path, "dtype", false);
  if (name.empty()) name = storage;
  ElementType element{};
  try {
    element = parse_element_type(name);
  } catch (const Error&) {
    out.problem = "its type " + printable(name) + " is not one of the format";
    return out;
  }
  if (storage_of(element) != storage) {
    out.problem = "its dtype attribute says " + printable(name) + " but it is stored as " + storage;
    return out;
  }
  std::int64_t count = 0;
  try {
    count = num_elements(shape);
  } catch (const Error&) {
    fail(path, "shape " + to_string(shape) + " has more than 2^63 elements");
  }
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<std::uint64_t>(count), element_size(element), &bytes)) {
    fail(path, "shape " + to_string(shape) + " has more than 2^64 bytes");
  }
  check_storage(dataset, plist, path, bytes);
  out.tensor = Tensor(element, shape);
  if (bytes > 0) {
    // The file's own type as memory type: no conversion, the stored bits as they are.
    check(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.tensor.data()) >= 0, path,
          "cannot be read");
  }
  return out;
}

RawFile Reader::read() {
  Handle file = open_file();
  read_version(file);
  RawFile out;
  out.case_id = text_attribute(file, "", "case_id", true);
  out.config = text_attribute(file, "", "config", true);
  out.provenance = text_attribute(file, "", "provenance", false);
  out.content_sha256 = text_attribute(file, "", "content_sha256", false);
  Handle root(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose);
  check(root.valid(), "/", "cannot be opened");
  H5O_info_t info{};
  check(H5Oget_info(root, &info) >= 0, "/", "cannot be opened");
  visited_.insert(info.addr);
  read_group(root, "", 0, out);
  return out;
}

}  // namespace

RawFile parse_hdf5(const std::string& path, std::uint64_t file_bytes) {
  return Reader(path, file_bytes).read();
}

}  // namespace attn::golden
