// SPDX-License-Identifier: Apache-2.0
#pragma once

// The border of a compute plugin: what is a Status or an exception inside leaves as a C code and a
// text that the calling thread may ask for.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/compute_plugin.h"

namespace annulus::kernels {

// The text of the last failure on this thread; "" before the first. Never null.
const char* LastError();

// Keeps the text for LastError, cut to what a fixed array holds, so that reporting out of memory
// needs none; returns the status.
annulusComputeStatus Fail(annulusComputeStatus status, absl::string_view text);

// INVALID_ARGUMENT, OUT_OF_MEMORY (RESOURCE_EXHAUSTED) and DEADLINE as they are, OK as OK, every
// other code as DEVICE_ERROR.
annulusComputeStatus ToComputeStatus(const absl::Status& status);

// Runs what a call does; nothing is thrown across the plugin's border.
template <typename Body>
annulusComputeStatus Guarded(Body body) {
  try {
    return ToComputeStatus(body());
  } catch (const std::bad_alloc&) {
    return Fail(ANNULUS_COMPUTE_OUT_OF_MEMORY, "out of host memory");
  } catch (const std::exception& error) {
    return Fail(ANNULUS_COMPUTE_DEVICE_ERROR, error.what());
  }
}

// INVALID_ARGUMENT "<what> is null".
absl::Status RequireHandle(absl::string_view what, const void* handle);

// INVALID_ARGUMENT when the struct is null or smaller than `expected`.
absl::Status RequireStruct(absl::string_view what, const void* pointer, size_t struct_size,
                           size_t expected);

// A struct of a caller that may know fewer members of it: at least the first `expected` bytes,
// those of abi_minor 0. What it does not know is zero.
template <typename Struct>
absl::StatusOr<Struct> ReadStruct(absl::string_view what, const Struct* pointer, size_t expected) {
  const size_t bytes = pointer == nullptr ? 0 : pointer->struct_size;
  absl::Status enough = RequireStruct(what, pointer, bytes, expected);
  if (!enough.ok()) return enough;
  Struct whole = {};
  std::memcpy(&whole, pointer, std::min(bytes, sizeof(Struct)));
  return whole;
}

// The other way round: fills in as much as the caller knows.
template <typename Struct>
absl::Status WriteStruct(absl::string_view what, Struct whole, size_t expected, Struct* pointer) {
  const size_t bytes = pointer == nullptr ? 0 : pointer->struct_size;
  absl::Status enough = RequireStruct(what, pointer, bytes, expected);
  if (!enough.ok()) return enough;
  whole.struct_size = bytes;
  std::memcpy(pointer, &whole, std::min(bytes, sizeof(Struct)));
  return absl::OkStatus();
}

}  // namespace annulus::kernels
