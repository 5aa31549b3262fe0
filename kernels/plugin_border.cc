// SPDX-License-Identifier: Apache-2.0
#include "kernels/plugin_border.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace annulus::kernels {
namespace {

thread_local char last_error_text[512] = "";

}  // namespace

const char* LastError() { return last_error_text; }

annulusComputeStatus Fail(annulusComputeStatus status, absl::string_view text) {
  const size_t length = std::min(text.size(), sizeof(last_error_text) - 1);
  std::memcpy(last_error_text, text.data(), length);
  last_error_text[length] = '\0';
  return status;
}

annulusComputeStatus ToComputeStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ANNULUS_COMPUTE_OK;
    case absl::StatusCode::kInvalidArgument:
      return Fail(ANNULUS_COMPUTE_INVALID_ARGUMENT, status.message());
    case absl::StatusCode::kResourceExhausted:
      return Fail(ANNULUS_COMPUTE_OUT_OF_MEMORY, status.message());
    case absl::StatusCode::kDeadlineExceeded:
      return Fail(ANNULUS_COMPUTE_DEADLINE, status.message());
    default:
      return Fail(ANNULUS_COMPUTE_DEVICE_ERROR, status.message());
  }
}

absl::Status RequireHandle(absl::string_view what, const void* handle) {
  if (handle == nullptr) return absl::InvalidArgumentError(absl::StrCat(what, " is null"));
  return absl::OkStatus();
}

absl::Status RequireStruct(absl::string_view what, const void* pointer, size_t struct_size,
                           size_t expected) {
  if (pointer == nullptr) return RequireHandle(what, pointer);
  if (struct_size < expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": struct_size ", struct_size, ", expected at least ", expected));
  }
  return absl::OkStatus();
}

}  // namespace annulus::kernels
