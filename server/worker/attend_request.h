// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/worker/engine.h"
#include "server/worker/executor.h"
#include "server/worker/fault_text.h"
#include "server/worker/group.h"
#include "server/worker/memory_pool.h"
#include "server/worker/placement.h"
#include "server/worker/plan_cache.h"
#include "server/worker/session.h"
#include "server/worker/workspace.h"

namespace annulus::worker {

// What a request uses of the engine.
struct AttendServices {
  const EngineOptions* options = nullptr;
  std::shared_ptr<Device> device;
  std::shared_ptr<MemoryPool> pool;
  PlanCache* plans = nullptr;
  Engine::FaultSink fault_sink;
  EngineObserver* observer = nullptr;
};

// One Attend on this rank, from its checked fence on: find and check everything, reserve, run, and
// on a failure end the epoch and find out who is to blame. Used by one thread.
class AttendRequest {
 public:
  AttendRequest(const AttendCall& call, const AttendServices& services,
                std::shared_ptr<Group> group, std::shared_ptr<Session> session,
                std::shared_ptr<RunControl> control)
      : call_(call),
        services_(services),
        group_(std::move(group)),
        session_(std::move(session)),
        control_(std::move(control)) {}

  // Everything that can be refused before anything runs. Memory is reserved here.
  absl::Status Prepare();
  absl::StatusOr<AttendAnswer> Run();

  int steps() const { return inputs_.program->plan->steps; }
  bool began() const { return began_; }
  const metrics::Timeline& timeline() const { return timeline_; }

 private:
  struct Operand {
    const char* name = "";
    const std::optional<TensorRef>* ref = nullptr;
    Session::Use use = Session::Use::kInput;
    bool of_queries = true;  // else of keys
    PlacedTensor* placed = nullptr;
    ResolvedTensor resolved;
  };

  absl::Status CheckCall() const;
  absl::Status FindOperands();
  absl::Status FindOperand(Operand* operand);
  absl::Status FindResident();
  absl::Status Fail(const absl::Status& cause, Executor* executor);
  absl::Status Blame(const absl::Status& cause, const FailurePoint& at) const;
  int SuspectOf(const absl::Status& cause, const FailurePoint& at) const;
  void Report(const absl::Status& cause, const FailurePoint& at) const;
  absl::Status KeepResident();
  absl::Status ZeroSlots();
  uint64_t LeasedBytes() const;

  const AttendCall& call_;
  const AttendServices& services_;
  const std::shared_ptr<Group> group_;
  const std::shared_ptr<Session> session_;
  const std::shared_ptr<RunControl> control_;
  std::vector<Operand> operands_;
  AttendInputs inputs_;
  std::unique_ptr<Ledger::PeakWatch> peak_;
  Placement placement_;
  Workspace space_;
  BoundProgram bound_;
  Device::Queue queue_;
  metrics::Timeline timeline_;
  bool began_ = false;
};

}  // namespace annulus::worker
