// SPDX-License-Identifier: Apache-2.0
#include "client/cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "client/cli/units.h"

namespace annulus::cli {
namespace {

constexpr int kBarWidth = 30;
constexpr auto kTick = std::chrono::milliseconds(20);
constexpr int kTicksPerDrawing = 10;

}  // namespace

ProgressBar::ProgressBar(std::string label, std::function<double()> share)
    : label_(std::move(label)), share_(std::move(share)) {
  if (isatty(STDERR_FILENO) != 1) return;
  thread_ = std::thread([this] { Draw(); });
}

ProgressBar::~ProgressBar() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void ProgressBar::Draw() {
  const auto start = std::chrono::steady_clock::now();
  for (int tick = 1; !stop_; ++tick) {
    std::this_thread::sleep_for(kTick);
    if (tick % kTicksPerDrawing != 0) continue;
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    const double share = share_();
    const int filled = static_cast<int>(std::clamp(share, 0.0, 1.0) * kBarWidth);
    const std::string bar = std::string(static_cast<size_t>(filled), '#') +
                            std::string(static_cast<size_t>(kBarWidth - filled), '.');
    const std::string percent =
        share < 0 ? "" : absl::StrFormat(" %3.0f %%", 100 * std::min(share, 1.0));
    std::fputs(absl::StrFormat("\r\033[K%s [%s]%s %s", label_, bar, percent,
                               FormatSeconds(elapsed.count()))
                   .c_str(),
               stderr);
  }
  std::fputs("\r\033[K", stderr);
}

}  // namespace annulus::cli
