// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "server/coordinator/action.h"
#include "server/coordinator/state.h"
#include "server/coordinator/types.h"

namespace annulus::coordinator {

// One call of Reduce: what its parts read, change and ask for.
struct Turn {
  const Settings& settings;
  State& state;
  const TimeMs now;
  std::vector<Action> actions;

  template <typename One>
  void Do(One action) {
    actions.emplace_back(std::in_place_type<One>, std::move(action));
  }
  void Count(Counter counter, std::string label = "") {
    Do(CountMetric{counter, std::move(label)});
  }
  void Info(std::string text) { Do(Log{LogLevel::kInfo, std::move(text)}); }
  void Warn(std::string text) { Do(Log{LogLevel::kWarning, std::move(text)}); }
};

}  // namespace annulus::coordinator
