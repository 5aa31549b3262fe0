// SPDX-License-Identifier: Apache-2.0
#pragma once

// The border of a compute plugin: what is a Status or an exception inside leaves as a C code and a
// text that the calling thread may ask for.

#include <cstddef>
#include <exception>
#include <new>

#include "absl/status/status.h"
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

// INVALID_ARGUMENT when the struct is null or smaller than this plugin knows it.
absl::Status RequireStruct(absl::string_view what, const void* pointer, size_t struct_size,
                           size_t expected);
template <typename Struct>
absl::Status RequireStruct(absl::string_view what, const Struct* pointer) {
  return RequireStruct(what, pointer, pointer == nullptr ? 0 : pointer->struct_size,
                       sizeof(Struct));
}

}  // namespace annulus::kernels
