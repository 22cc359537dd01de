#include <set>
#include <vector>

#include "golden/golden_file.h"
#include "golden/hdf5_handle.h"
#include "golden/raw_file.h"
#include "reference/core/error.h"

namespace attn::golden {
namespace {

void check(bool ok, const std::string& what) {
  if (ok) return;
  throw Error(ErrorKind::kInternal, "HDF5 could not write " + what + " (" + hdf5_error() + ")",
              what);
}

Handle checked(hid_t id, Handle::Close close, const std::string& what) {
  check(id >= 0, what);
  return {id, close};
}

/// Metadata has checksums (libver V18) and no times: equal content gives equal bytes.
Handle create_file(const std::string& path) {
  Handle access = checked(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "file");
  Handle creation = checked(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "file");
  check(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V110) >= 0, "file");
#if H5_VERSION_GE(1, 10, 8)
  H5Pset_file_locking(access, false, true);  // network file systems have no locks
#endif
  check(H5Pset_obj_track_times(creation, false) >= 0, "file");
  return checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose, "file");
}

/// One variable-length UTF-8 string, which h5py reads as str.
void write_text(hid_t object, const char* name, const std::string& text) {
  Handle type = checked(H5Tcopy(H5T_C_S1), H5Tclose, name);
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  Handle space = checked(H5Screate(H5S_SCALAR), H5Sclose, name);
  Handle attribute =
      checked(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, name);
  const char* value = text.c_str();
  check(H5Awrite(attribute, type, &value) >= 0, name);
}

void write_version(hid_t file, std::int64_t version) {
  Handle space = checked(H5Screate(H5S_SCALAR), H5Sclose, "format_version");
  Handle attribute =
      checked(H5Acreate2(file, "format_version", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT),
              H5Aclose, "format_version");
  check(H5Awrite(attribute, H5T_NATIVE_INT64, &version) >= 0, "format_version");
}

Handle float16_type() {
  Handle type = checked(H5Tcopy(H5T_IEEE_F32LE), H5Tclose, "float16");
  check(H5Tset_fields(type, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(type, 2) >= 0 &&
            H5Tset_ebias(type, 15) >= 0,
        "float16");
  return type;
}

Handle storage_type(ElementType type) {
  const auto copy = [](hid_t id) { return checked(H5Tcopy(id), H5Tclose, "a type"); };
  switch (type) {
    case ElementType::kFloat64:
      return copy(H5T_IEEE_F64LE);
    case ElementType::kFloat32:
      return copy(H5T_IEEE_F32LE);
    case ElementType::kFloat16:
      return float16_type();
    case ElementType::kInt64:
      return copy(H5T_STD_I64LE);
    case ElementType::kInt32:
      return copy(H5T_STD_I32LE);
    case ElementType::kUInt32:
      return copy(H5T_STD_U32LE);
    case ElementType::kBFloat16:
      return copy(H5T_STD_U16LE);
    default:
      return copy(H5T_STD_U8LE);
  }
}

Handle shape_space(const Shape& shape, const std::string& path) {
  if (shape.empty()) return checked(H5Screate(H5S_SCALAR), H5Sclose, path);
  const std::vector<hsize_t> dims(shape.begin(), shape.end());
  return checked(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), H5Sclose,
                 path);
}

void write_dataset(hid_t file, const std::string& path, const RawDataset& dataset) {
  const Tensor& tensor = dataset.tensor;
  Handle type = storage_type(tensor.type());
  Handle space = shape_space(tensor.shape(), path);
  Handle creation = checked(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, path);
  check(H5Pset_obj_track_times(creation, false) >= 0, path);
  Handle out =
      checked(H5Dcreate2(file, path.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
              H5Dclose, path);
  if (tensor.size() > 0) {
    // The same type on both sides: the library must not convert, it does not round to nearest even.
    check(H5Dwrite(out, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.data()) >= 0, path);
  }
  write_text(out, "dtype", std::string(element_name(tensor.type())));
  if (!dataset.sha256.empty()) write_text(out, "sha256", dataset.sha256);
}

void write_group(hid_t file, const std::string& path) {
  Handle creation = checked(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, path);
  check(H5Pset_obj_track_times(creation, false) >= 0, path);
  checked(H5Gcreate2(file, path.c_str(), H5P_DEFAULT, creation, H5P_DEFAULT), H5Gclose, path);
}

void write_content(hid_t file, const RawFile& content) {
  write_text(file, "format", kFormatName);
  write_version(file, kFormatVersion);
  write_text(file, "case_id", content.case_id);
  write_text(file, "config", content.config);
  write_text(file, "provenance", content.provenance);
  if (!content.content_sha256.empty()) write_text(file, "content_sha256", content.content_sha256);
  std::set<std::string> groups;
  for (const auto& [path, dataset] : content.datasets) {
    for (std::size_t slash = path.find('/'); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
      const std::string group = path.substr(0, slash);
      if (groups.insert(group).second) write_group(file, group);
    }
    write_dataset(file, path, dataset);
  }
}

}  // namespace

void format_hdf5(const RawFile& content, const std::string& path) {
  const Hdf5Session session;
  Handle file = create_file(path);
  write_content(file, content);
  // Closing alone would hide a full disk: the handle's destructor has nowhere to report it.
  check(H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0, "file");
}

}  // namespace attn::golden
