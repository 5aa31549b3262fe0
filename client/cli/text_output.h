// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace annulus::cli {

// `text` to a file, whole or not at all, or to standard output where `path` is empty. Returns the
// exit code: a usage error if the file cannot be written.
int WriteText(const std::string& path, const std::string& text);

}  // namespace annulus::cli
