// SPDX-License-Identifier: Apache-2.0
#include "client/cli/text_output.h"

#include <cstdio>

#include "client/cli/exit_code.h"
#include "client/cli/interrupt.h"
#include "client/io/atomic_file.h"

namespace annulus::cli {

int WriteText(const std::string& path, const std::string& text) {
  if (path.empty()) {
    std::fputs(text.c_str(), stdout);
    return std::fflush(stdout) == 0 ? kDone : kFault;
  }
  const UninterruptedSection section;
  const absl::Status written = io::WriteFileAtomically(path, text);
  return written.ok() ? kDone : Fail(UsageError(written));
}

}  // namespace annulus::cli
