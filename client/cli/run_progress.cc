// SPDX-License-Identifier: Apache-2.0
#include "client/cli/run_progress.h"

#include <memory>

#include "absl/time/clock.h"
#include "client/src/coordinator_link.h"

namespace annulus::cli {
namespace {

constexpr absl::Duration kAskTimeout = absl::Milliseconds(200);

double ShareOf(const v1::ListWorkersResponse& answer, const std::string& group) {
  double done = 0;
  int ranks = 0;
  for (const v1::WorkerInfo& worker : answer.workers()) {
    for (const v1::RequestProgress& request : worker.progress()) {
      if (request.fence().group() != group || request.steps() <= 0) continue;
      done += static_cast<double>(request.fence().step()) / request.steps();
      ++ranks;
    }
  }
  return ranks == 0 ? -1 : done / ranks;
}

}  // namespace

std::function<double()> GroupProgress(const std::string& coordinator, const std::string& group) {
  auto link = std::make_shared<std::unique_ptr<client::CoordinatorLink>>();
  return [link, coordinator, group] {
    const absl::Time deadline = absl::Now() + kAskTimeout;
    if (*link == nullptr) {
      auto connected = client::CoordinatorLink::Connect(coordinator, deadline);
      if (!connected.ok()) return -1.0;
      *link = *std::move(connected);
    }
    const auto answer = (*link)->ListWorkers(deadline);
    return answer.ok() ? ShareOf(*answer, group) : -1.0;
  };
}

}  // namespace annulus::cli
