// SPDX-License-Identifier: Apache-2.0
#include "client/io/tensor_file.h"

#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/io/atomic_file.h"
#include "client/io/mapped_file.h"
#include "client/io/npy.h"
#include "client/io/safetensors.h"
#include "client/io/text.h"
#include "server/base/status_macros.h"

namespace annulus::io {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kTensorBytesMax = uint64_t{1} << 62;
constexpr size_t kFilesMax = 1024;

enum class Kind { kSafetensors, kNpy, kFolder };

absl::StatusOr<Kind> KindOf(const std::string& path) {
  std::error_code error;
  if (path.ends_with('/') || fs::is_directory(path, error)) return Kind::kFolder;
  if (path.ends_with(".safetensors")) return Kind::kSafetensors;
  if (path.ends_with(".npy")) return Kind::kNpy;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": expected a .safetensors or .npy file, or a folder of .npy files"));
}

// "<path>: <message>", the code kept.
absl::Status AtPath(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::Status CheckFormat(const std::string& path, Kind kind,
                         const std::map<std::string, Dtype>& tensors) {
  if (kind == Kind::kSafetensors) return absl::OkStatus();
  if (kind == Kind::kNpy && tensors.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": an .npy file holds one array, not ",
                                                   tensors.size(),
                                                   "; name a .safetensors file or a folder"));
  }
  for (const auto& [name, dtype] : tensors) {
    if (dtype == Dtype::kBf16) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", Quoted(name),
                                                     " is bfloat16, which npy has not; name a "
                                                     ".safetensors file"));
    }
    if (kind == Kind::kFolder && (name.empty() || name.find('/') != std::string::npos)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the tensor name ", Quoted(name), " cannot be a file's"));
    }
  }
  return absl::OkStatus();
}

std::map<std::string, Dtype> TypesOf(const NamedTensors& tensors) {
  std::map<std::string, Dtype> types;
  for (const auto& [name, tensor] : tensors) types[name] = tensor.dtype;
  return types;
}

std::string FileInFolder(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / (name + ".npy")).string();
}

}  // namespace

size_t ElementBytes(Dtype dtype) { return dtype == Dtype::kF32 ? 4 : 2; }

std::string_view DtypeName(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return "F32";
    case Dtype::kBf16:
      return "BF16";
    case Dtype::kF16:
      return "F16";
  }
  return "?";
}

std::string ShapeText(std::span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<uint64_t> TensorBytes(std::span<const int64_t> shape, uint64_t element_bytes) {
  uint64_t bytes = element_bytes;
  bool empty = false;
  for (int64_t extent : shape) {
    if (extent < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", ShapeText(shape), " has a negative extent"));
    }
    empty = empty || extent == 0;
  }
  if (empty) return 0;
  for (int64_t extent : shape) {
    if (static_cast<uint64_t>(extent) > kTensorBytesMax / bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", ShapeText(shape), " takes more than 2^62 bytes"));
    }
    bytes *= static_cast<uint64_t>(extent);
  }
  return bytes;
}

struct TensorFile::State {
  std::string path;
  std::vector<MappedFile> files;
  NamedTensors tensors;
  std::map<std::string, std::string> other_types;

  absl::Status AddSafetensors(const std::string& file_path) {
    ANNULUS_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(file_path));
    absl::StatusOr<Safetensors> parsed = ParseSafetensors(file.bytes());
    if (!parsed.ok()) return AtPath(file_path, parsed.status());
    tensors = std::move(parsed->tensors);
    other_types = std::move(parsed->other_types);
    files.push_back(std::move(file));
    return absl::OkStatus();
  }

  absl::Status AddNpy(const std::string& file_path) {
    ANNULUS_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(file_path));
    absl::StatusOr<TensorView> tensor = ParseNpy(file.bytes());
    if (!tensor.ok()) return AtPath(file_path, tensor.status());
    tensors[fs::path(file_path).stem().string()] = *std::move(tensor);
    files.push_back(std::move(file));
    return absl::OkStatus();
  }

  absl::Status AddFolder() {
    std::error_code error;
    fs::directory_iterator entry(path, error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
      if (entry->path().extension() != ".npy") continue;
      if (files.size() == kFilesMax) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": more than ", kFilesMax, " .npy files"));
      }
      ANNULUS_RETURN_IF_ERROR(AddNpy(entry->path().string()));
    }
    if (error) return absl::NotFoundError(absl::StrCat(path, ": ", error.message()));
    if (files.empty()) return absl::NotFoundError(absl::StrCat(path, ": no .npy file in it"));
    return absl::OkStatus();
  }
};

TensorFile::TensorFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
TensorFile::TensorFile(TensorFile&&) noexcept = default;
TensorFile& TensorFile::operator=(TensorFile&&) noexcept = default;
TensorFile::~TensorFile() = default;

absl::StatusOr<TensorFile> TensorFile::Open(const std::string& path) {
  ANNULUS_ASSIGN_OR_RETURN(const Kind kind, KindOf(path));
  auto state = std::make_unique<State>();
  state->path = path;
  switch (kind) {
    case Kind::kSafetensors:
      ANNULUS_RETURN_IF_ERROR(state->AddSafetensors(path));
      break;
    case Kind::kNpy:
      ANNULUS_RETURN_IF_ERROR(state->AddNpy(path));
      break;
    case Kind::kFolder:
      ANNULUS_RETURN_IF_ERROR(state->AddFolder());
      break;
  }
  return TensorFile(std::move(state));
}

const NamedTensors& TensorFile::tensors() const { return state_->tensors; }

bool TensorFile::Has(const std::string& name) const {
  return state_->tensors.contains(name) || state_->other_types.contains(name);
}

absl::StatusOr<TensorView> TensorFile::Find(const std::string& name) const {
  const auto found = state_->tensors.find(name);
  if (found != state_->tensors.end()) return found->second;
  const auto other = state_->other_types.find(name);
  if (other != state_->other_types.end()) {
    return absl::InvalidArgumentError(absl::StrCat(state_->path, ": tensor ", Quoted(name), " is ",
                                                   other->second, ", expected F32, BF16 or F16"));
  }
  std::string names;
  for (const auto& [have, tensor] : state_->tensors) {
    if (names.size() > 200) {
      absl::StrAppend(&names, ", ...");
      break;
    }
    absl::StrAppend(&names, names.empty() ? "" : ", ", Quoted(have));
  }
  return absl::NotFoundError(absl::StrCat(state_->path, ": no tensor ", Quoted(name), ", it has ",
                                          names.empty() ? "none" : names));
}

absl::Status WriteTensors(const std::string& path, const NamedTensors& tensors) {
  ANNULUS_ASSIGN_OR_RETURN(const Kind kind, KindOf(path));
  ANNULUS_RETURN_IF_ERROR(CheckFormat(path, kind, TypesOf(tensors)));
  switch (kind) {
    case Kind::kSafetensors:
      return WriteSafetensors(path, tensors);
    case Kind::kNpy:
      return WriteNpy(path, tensors.begin()->second);
    case Kind::kFolder:
      break;
  }
  for (const auto& [name, tensor] : tensors) {
    ANNULUS_RETURN_IF_ERROR(WriteNpy(FileInFolder(path, name), tensor));
  }
  return absl::OkStatus();
}

absl::Status CheckWritable(const std::string& path, const std::map<std::string, Dtype>& tensors) {
  ANNULUS_ASSIGN_OR_RETURN(const Kind kind, KindOf(path));
  ANNULUS_RETURN_IF_ERROR(CheckFormat(path, kind, tensors));
  if (kind != Kind::kFolder) return CheckWritable(path);
  for (const auto& [name, dtype] : tensors) {
    ANNULUS_RETURN_IF_ERROR(CheckWritable(FileInFolder(path, name)));
  }
  return absl::OkStatus();
}

}  // namespace annulus::io
