// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/metrics/timeline.h"
#include "server/transport/transport.h"
#include "server/worker/bound_program.h"
#include "server/worker/device.h"
#include "server/worker/engine.h"
#include "server/worker/run_control.h"

namespace annulus::worker {

struct ExecutorOptions {
  bool overlap = true;
  double hop_timeout_seconds = 30;
  uint64_t tag_base = 0;  // tag of the plan's transfer 0; see TagBase
};

// Tags of one request's transfers: bits 24 to 61 from the request's id, lower 24 the transfer's
// index in the plan, so that requests of a group never mix. The same on every rank.
uint64_t TagBase(const std::string& request_id);

// Runs one rank's bound program over a device and a transport, as the plan has it: in each step
// bring over from the wire and apply what is due, post, compute. Ring attention, arXiv 2310.01889,
// and whatever else a plan says.
//
//   Executor executor(bound, &transport, &device, &queue, options, &control, &timeline);
//   absl::Status status = executor.Run();
//   if (!status.ok()) { ... transport.Abort(why); executor.Abandon(); ... }
//
// Run ends early, with no operation cancelled, on the first error: ABORTED or what the transport or
// device said, CANCELLED or DEADLINE_EXCEEDED when the control says stop. No slot may be reused
// before Abandon has returned.
class Executor {
 public:
  // `transport` may be null for a plan without transfers. All outlive the executor.
  Executor(const BoundProgram& bound, transport::Transport* transport, Device* device,
           Device::Queue* queue, const ExecutorOptions& options, RunControl* control,
           metrics::Timeline* timeline, StepObserver* observer);

  absl::Status Run();
  // Waits until no posted operation touches memory any more. Call after Transport::Abort.
  void Abandon();

  // Whether any transfer was posted or any output written.
  bool began() const { return began_; }
  // The rank whose transfer failed or was waited for; -1: none.
  int failed_peer() const { return failed_peer_; }

 private:
  struct Posted {
    transport::Request request;
    int64_t post_ns = 0;
    bool done = true;
  };

  absl::Status Begin();
  absl::Status Prepare();
  absl::Status ApplyDue(int step);
  absl::Status Arrive(int id, int step);
  absl::Status PostAll(int step);
  absl::Status MakeReady(const std::vector<int>& posts, int step);
  absl::Status PostOne(int id);
  absl::Status Complete(int id, int step);
  absl::Status ComputeAll(int step);
  absl::Status Finish();
  absl::Status CheckStop();
  absl::Status Zero(const MemoryRange& range);
  absl::Status CopyAll(const std::vector<annulusCopyArgs>& copies, metrics::OpKind kind, int step,
                       const char* label);
  absl::Status Did(annulusComputeStatus status, const char* what) {
    return device_->ToStatus(status, what);
  }
  // Records `kind` from start to now, once the device has done it.
  absl::Status Record(metrics::OpKind kind, int step, int64_t start_ns, const char* label = "");
  void TellObserver();

  const BoundProgram& bound_;
  const RankProgram& program_;
  transport::Transport* const transport_;
  Device* const device_;
  Device::Queue* const queue_;
  const annulusComputeV1& compute_;
  const ExecutorOptions options_;
  RunControl* const control_;
  metrics::Timeline* const timeline_;
  StepObserver* const observer_;
  std::vector<Posted> posted_;  // by transfer id
  bool began_ = false;
  int failed_peer_ = -1;
};

}  // namespace annulus::worker
