// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

namespace annulus::cli {

// A progress bar on stderr while work goes on, where stderr is a terminal; else nothing. The share
// of the work that is done comes from `share` (0..1, below 0: unknown), asked a few times a second
// from a thread of its own.
class ProgressBar {
 public:
  ProgressBar(std::string label, std::function<double()> share);
  // Wipes the bar.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

 private:
  void Draw();
  const std::string label_;
  const std::function<double()> share_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace annulus::cli
