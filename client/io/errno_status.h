// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

namespace annulus::io {

// "<what>: <the system's reason>", with the code that suits the errno `error`.
absl::Status ErrnoStatus(int error, const std::string& what);

}  // namespace annulus::io
