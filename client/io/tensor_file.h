// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace annulus::io {

enum class Dtype { kF32, kBf16, kF16 };

size_t ElementBytes(Dtype dtype);
// "F32", "BF16", "F16", as safetensors writes them.
std::string_view DtypeName(Dtype dtype);
// "[2, 1024, 8, 64]".
std::string ShapeText(std::span<const int64_t> shape);

// A tensor in memory of someone else: dense, row major, little endian. `bytes` is as long as shape
// and dtype say. It need not be aligned to the element: copy, or check, before reading floats.
struct TensorView {
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

using NamedTensors = std::map<std::string, TensorView>;

// Bytes of a tensor; INVALID_ARGUMENT if an extent is negative or the product exceeds 2^62.
absl::StatusOr<uint64_t> TensorBytes(std::span<const int64_t> shape, uint64_t element_bytes);

// The tensors of a file or folder, mapped read only and never copied:
//   x.safetensors   every tensor in it
//   x.npy           one tensor, named after the file ("x")
//   a folder        one tensor per *.npy file in it
//
//   ANNULUS_ASSIGN_OR_RETURN(TensorFile file, TensorFile::Open("qkv.safetensors"));
//   ANNULUS_ASSIGN_OR_RETURN(TensorView q, file.Find("q"));
//
// Views live as long as the TensorFile (or where it was moved to). A file that another process
// shortens meanwhile raises SIGBUS when read, as every mapping does.
class TensorFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED: the file. INVALID_ARGUMENT: not one of these kinds, or malformed;
  // says where, what was expected and what stands there.
  static absl::StatusOr<TensorFile> Open(const std::string& path);

  TensorFile(TensorFile&&) noexcept;
  TensorFile& operator=(TensorFile&&) noexcept;
  ~TensorFile();

  // Tensors of the types this library reads, by name.
  const NamedTensors& tensors() const;
  bool Has(const std::string& name) const;  // also if of a type that Find refuses
  // NOT_FOUND: no such tensor, with the names there are. INVALID_ARGUMENT: of another type than
  // F32, BF16 and F16; names it and its type.
  absl::StatusOr<TensorView> Find(const std::string& name) const;

 private:
  struct State;
  explicit TensorFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Writes `tensors` to x.safetensors; to x.npy if there is exactly one; or, if `path` is a folder or
// ends with "/", to <name>.npy each. Each file appears complete or not at all (see atomic_file.h).
// INVALID_ARGUMENT: another extension, or a tensor that the format cannot hold (npy has no
// bfloat16).
absl::Status WriteTensors(const std::string& path, const NamedTensors& tensors);

// OK if WriteTensors could write such tensors at `path` now: format, types, folder and permissions.
// To be asked before long work.
absl::Status CheckWritable(const std::string& path, const std::map<std::string, Dtype>& tensors);

}  // namespace annulus::io
