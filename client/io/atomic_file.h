// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace annulus::io {

// A file that appears under its name complete or not at all: written beside it under another name,
// synced, then renamed. Destroyed without Commit, it leaves nothing behind and an older file of the
// name as it was.
//
//   ANNULUS_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create("o.safetensors"));
//   ANNULUS_RETURN_IF_ERROR(file.Append(header));
//   ANNULUS_RETURN_IF_ERROR(file.Commit());
//
// Errors name the path and the system's reason: NOT_FOUND (no such folder), PERMISSION_DENIED,
// FAILED_PRECONDITION (the name belongs to a folder or device), RESOURCE_EXHAUSTED (disk full).
class AtomicFile {
 public:
  static absl::StatusOr<AtomicFile> Create(const std::string& path);

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) = delete;
  ~AtomicFile();

  absl::Status Append(std::span<const std::byte> bytes);
  absl::Status Append(std::string_view text);
  // The file stands under its name, on disk, when this returns OK. No call may follow.
  absl::Status Commit();

 private:
  AtomicFile(std::string path, std::string temporary, int fd);

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
};

absl::Status WriteFileAtomically(const std::string& path, std::string_view text);

// OK if AtomicFile::Create would succeed now; leaves nothing behind.
absl::Status CheckWritable(const std::string& path);

}  // namespace annulus::io
