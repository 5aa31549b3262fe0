// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"
#include "server/metrics/timeline.h"
#include "server/ring/plan.h"
#include "server/transport/transport_plugin.h"
#include "server/worker/device_options.h"

namespace annulus::worker {

// The worker without its RPC: sessions and their memory, groups and their transports, and Attend.
// Everything the gRPC service does is one call here, so that all of it is tested, also under TSan,
// without gRPC.
//
// Errors carry a FaultInfo payload (see fault_info.h) where a rank, worker, step or peer is known.

// What a group of ranks is at one epoch, as the coordinator told it.
struct GroupAssignment {
  std::string group;
  uint64_t epoch = 0;
  int rank = 0;
  int size = 1;
  int window_size = 1;
  int ranks_per_node = 0;             // 0: by `nodes`
  std::vector<std::string> workers;   // in rank order
  std::vector<std::string> nodes;     // in rank order
  std::vector<std::string> host_ids;  // in rank order
  annulusLinkModel inner_link{};
  annulusLinkModel outer_link{};
  bool transfers_off = false;
  // Names of the transports inside nodes and between them, of those that this worker has; "": there
  // is no such hop, or nothing was decided: the other level's, or the first. Where they differ, a
  // transfer takes the one of its peer's level.
  std::string inner_transport;
  std::string outer_transport;
};

// The handles of one rank's transports.
struct RankHandles {
  annulusTransportHandle inner{};
  std::optional<annulusTransportHandle> outer;  // none: one transport serves both levels
};

// Who ended an epoch and why; the coordinator's verdict.
struct FaultVerdict {
  std::string group;
  uint64_t epoch = 0;
  int culprit_rank = -1;
  std::string culprit_worker;
  std::string reason;  // WORKER_LOST, WORKER_SILENT, PEER_UNREACHABLE, REQUEST_FAILED, RELEASED
  std::string message;
  int step = -1;
};

// What this worker saw; goes to the coordinator, which answers with a verdict.
struct FaultObservation {
  std::string group;
  uint64_t epoch = 0;
  int suspect_rank = -1;
  int step = -1;
  std::string request_id;
  std::string message;
};

struct Fence {
  uint64_t term = 0;
  std::string group;
  uint64_t epoch = 0;
  uint64_t incarnation = 0;
  std::string request_id;
};

struct RegionRef {
  uint64_t region_id = 0;
  uint64_t generation = 0;
  uint64_t offset = 0;
};

// Device memory that a client exported and leases; see kernels/compute_plugin.h.
struct DeviceLease {
  annulusMemoryHandle handle{};
  std::string bus_id;  // of the device that it lies on
  uint64_t bytes = 0;  // leased, from handle.offset on
};

// See TensorRef in types.proto.
struct TensorRef {
  std::optional<RegionRef> region;
  std::string tensor_id;
  annulusDtype dtype = ANNULUS_F32;
  int64_t batch = 0, rows = 0;
  int heads = 0, head_dim = 0;  // head_dim 0: LSE
  int64_t batch_stride = 0, row_stride = 0, head_stride = 0;
  ring::TokenRanges tokens;
};

struct AttendCall {
  Fence fence;
  std::string session_id;
  std::string plan_digest;
  int64_t batch = 1;
  int query_heads = 1, kv_heads = 1, head_dim = 64;
  annulusDtype dtype = ANNULUS_F32;
  float softmax_scale = 0;
  std::optional<TensorRef> q, k, v, d_o, o, lse, dq, dk, dv;
  bool overlap = true;
  bool gradient_wire_bf16 = false;
  bool retain = false;
  std::string forward_request_id;
  bool record_timeline = false;
  int64_t deadline_ns = 0;  // CLOCK_MONOTONIC
  // Hash over the request's content, from the caller: tells a repeated request_id from a reused
  // one.
  uint64_t content_hash = 0;
  std::function<bool()> cancelled;  // polled between hops; may be empty
};

struct AttendAnswer {
  int rank = 0;
  metrics::Summary summary;
  std::vector<metrics::StepSummary> steps;
  metrics::Timeline timeline;  // ops kept only when asked for
  uint64_t peak_bytes = 0;
  bool replayed = false;
};

struct Progress {
  Fence fence;
  int step = 0;
  int steps = 0;
  int hop = -1;
  int waiting_for_rank = -1;
  uint64_t advances = 0;
};

// Bytes that a worker holds, by what for.
struct MemoryUse {
  uint64_t leased = 0;    // regions shared by clients
  uint64_t uploaded = 0;  // tensors held for clients
  uint64_t retained = 0;  // KV kept between calls
  uint64_t scratch = 0;   // buffers of running requests
};

struct EngineOptions {
  std::string name;
  uint64_t incarnation = 0;
  std::string host_id;
  std::string bind_address = "127.0.0.1";
  uint64_t memory_limit_bytes = 0;
  int max_concurrent_requests = 8;
  DeviceOptions device;
  double hop_timeout_seconds = 30;       // bound of one wait when the call has no nearer deadline
  double verdict_timeout_seconds = 1.8;  // a failed request waits for the coordinator's word
  double connect_timeout_seconds = 10;   // bound of ConnectGroup
  double peer_timeout_seconds = 1.0;
  const annulusComputeV1* compute = nullptr;
  std::vector<const annulusTransportV1*> transports;  // the first is the default
};

// Observes one running request; called by the request's thread alone; must not block.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  // After each step. `ops` are all that are known so far; every op that reaches back before
  // `settled_ns` is among them.
  virtual void OnStep(const std::vector<metrics::Op>& ops, int64_t settled_ns) = 0;
};

// Observes what happens, for metrics. Called from any thread; must not block.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  // A request is about to run over these transports, without names where there is one rank; null:
  // its steps need no observer.
  virtual std::unique_ptr<StepObserver> OnStart(const AttendCall& /*call*/,
                                                const metrics::TransportNames& /*transports*/) {
    return nullptr;
  }
  virtual void OnRequest(const AttendCall& call, const absl::Status& status,
                         const AttendAnswer& answer, const metrics::Timeline& timeline) = 0;
  virtual void OnStaleEpoch() = 0;
};

class Engine {
 public:
  // A checked plan by digest, or an error; called once per unknown digest, may block (an RPC to the
  // coordinator).
  using PlanSource = std::function<absl::StatusOr<std::string>(const std::string& digest)>;
  using FaultSink = std::function<void(const FaultObservation&)>;

  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options);
  virtual ~Engine() = default;

  virtual void SetPlanSource(PlanSource source) = 0;
  virtual void SetFaultSink(FaultSink sink) = 0;  // called without locks held
  virtual void SetObserver(EngineObserver* observer) = 0;

  // Groups. A lower epoch than the one known is refused with FAILED_PRECONDITION.
  virtual void SetTerm(uint64_t term) = 0;
  virtual absl::StatusOr<RankHandles> PrepareGroup(const GroupAssignment& assignment) = 0;
  virtual absl::Status ConnectGroup(const std::string& group, uint64_t epoch,
                                    const std::vector<RankHandles>& handles) = 0;
  // Aborts what runs on that epoch; each of its calls ends with the verdict. Unknown group or newer
  // epoch: no effect.
  virtual void FaultGroup(const FaultVerdict& verdict) = 0;
  // The coordinator is gone or has forgotten us: every group is faulted with this reason.
  virtual void FaultAllGroups(const std::string& reason) = 0;
  virtual void ReleaseGroup(const std::string& group, uint64_t epoch) = 0;

  // Sessions and their memory.
  virtual std::string OpenSession(const std::string& client) = 0;  // 128 random bits, hex
  virtual void CloseSession(const std::string& session_id) = 0;    // waits for nothing: memory goes
                                                                   // when its last request ends
  // Maps a sealed memfd (takes ownership of fd). INVALID_ARGUMENT if not sealed against shrinking,
  // or too small.
  virtual absl::Status AddRegion(const std::string& session_id, uint64_t region_id,
                                 uint64_t generation, int fd, uint64_t bytes) = 0;
  // Imports device memory; leaves the handle's descriptor to the caller. INVALID_ARGUMENT: it lies
  // on another device, or the lease beyond its allocation. UNIMPLEMENTED: this worker's device
  // takes no memory of other processes.
  virtual absl::Status AddDeviceRegion(const std::string& session_id, uint64_t region_id,
                                       uint64_t generation, const DeviceLease& lease) = 0;
  virtual absl::Status RemoveRegion(const std::string& session_id, uint64_t region_id) = 0;
  virtual absl::Status CreateTensor(const std::string& session_id, const std::string& tensor_id,
                                    uint64_t bytes) = 0;
  // OUT_OF_RANGE when offset is not the count committed so far (uploads) or beyond the end
  // (downloads).
  virtual absl::StatusOr<uint64_t> WriteTensor(const std::string& session_id,
                                               const std::string& tensor_id, uint64_t offset,
                                               const void* data, size_t bytes) = 0;
  // Pointer valid while the returned keep-alive lives.
  struct TensorBytes {
    const uint8_t* data = nullptr;
    uint64_t bytes = 0;
    uint64_t committed_bytes = 0;
    std::shared_ptr<const void> keep_alive;
  };
  virtual absl::StatusOr<TensorBytes> ReadTensor(const std::string& session_id,
                                                 const std::string& tensor_id) = 0;
  virtual absl::Status DeleteTensor(const std::string& session_id,
                                    const std::string& tensor_id) = 0;
  virtual absl::Status ReleaseRetained(const std::string& session_id,
                                       const std::string& request_id) = 0;

  // Blocks until done; thread safe; several may run at once.
  virtual absl::StatusOr<AttendAnswer> Attend(const AttendCall& call) = 0;

  virtual std::vector<Progress> RunningRequests() const = 0;
  virtual uint64_t used_bytes() const = 0;
  virtual MemoryUse memory_use() const = 0;
  virtual std::string device_description() const = 0;
  virtual std::string device_bus_id() const = 0;  // "0000:3b:00.0"; "": not on a bus
};

}  // namespace annulus::worker
