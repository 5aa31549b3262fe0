// SPDX-License-Identifier: Apache-2.0
#pragma once

// Values that both forms of the client speak: shapes, masks, options and reports. Plain data: copy
// freely; nothing here is thread safe for writing.

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace annulus::client {

enum class DataType { kF32, kBf16, kF16 };
enum class MaskKind {
  kFull,
  kCausal,  // query i sees key j when j <= i + (kv_length - query_length): bottom-right aligned
};
// How a sequence is dealt to the ranks.
enum class Layout { kContiguous, kZigzag, kStriped };
// Type of dK, dV partial sums on the wire; they are accumulated in float32 whatever it is.
enum class GradientWire { kFp32, kBf16 };
// How tensor bytes reach a worker. kAuto: memory in place where the worker is on this host, else
// streams.
enum class DataPath { kAuto, kMemfd, kStream };

// Bytes of one element.
size_t DataTypeBytes(DataType dtype);

struct Mask {
  MaskKind kind = MaskKind::kFull;
  // Sliding window: keys at most this many positions left of the diagonal; -1: none.
  int64_t window_left = -1;
};

// Tokens begin, begin + stride, ... below end.
struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t stride = 1;
  int64_t count() const { return end <= begin ? 0 : (end - begin + stride - 1) / stride; }
};

// A dense row-major tensor [batch, rows, heads, head_dim] in host memory; LSE has head_dim 0 and is
// [batch, rows, heads] float32. The view owns nothing. Where `data` lies in memory allocated by the
// client (AllocateTensor), workers of this host use it in place; other memory is copied.
struct TensorView {
  void* data = nullptr;
  DataType dtype = DataType::kF32;
  int64_t batch = 0;
  int64_t rows = 0;
  int32_t heads = 0;
  int32_t head_dim = 0;

  // 0 if any extent is negative or the product does not fit.
  size_t bytes() const;
};

// Emulation of a link on one machine. 0: not emulated.
struct LinkModel {
  double bytes_per_second = 0;
  double latency_seconds = 0;
};

// A context-parallel group: `size` workers (N) around a ring of windows of `window_size` (w).
struct GroupOptions {
  std::string name = "default";  // [a-z0-9-]{1,63}
  int size = 1;
  int window_size = 0;     // divides size; 0: size, a plain ring
  int ranks_per_node = 0;  // states a topology where there is none; 0: from the workers' nodes
  LinkModel inner_link;
  LinkModel outer_link;
  // Transfers replaced by no-ops, to measure compute alone. Results are wrong by intent.
  bool transfers_off = false;
  std::vector<std::string> members;  // workers in rank order; empty: the coordinator chooses
  // Transports inside nodes and between them, by name; "": the coordinator chooses.
  std::string inner_transport;
  std::string outer_transport;
};

struct GroupMember {
  int rank = 0;
  std::string worker;
  std::string address;
  std::string node;
};

struct GroupInfo {
  std::string name;
  uint64_t epoch = 0;
  int window_size = 0;
  std::vector<GroupMember> members;  // in rank order
};

struct AttendOptions {
  Mask mask;
  Layout layout = Layout::kZigzag;
  float softmax_scale = 0;  // 0: 1/sqrt(head_dim)
  // Transfers beside compute (true) or strictly between computes.
  bool overlap = true;
  GradientWire gradient_wire = GradientWire::kFp32;
  // Forward: keep the KV held last for a backward to start from; see AttendReport::request_id.
  bool retain = false;
  bool record_timeline = false;
  DataPath data_path = DataPath::kAuto;
  // Of the whole call, preparation and movement of data included.
  absl::Duration deadline = absl::Minutes(10);
};

struct TimelineOp {
  enum class Kind { kCompute, kSend, kReceive, kWait, kAccumulate, kPrepare, kFinish, kCopy };
  Kind kind = Kind::kCompute;
  int step = 0;
  bool outer = false;    // ring that a transfer belongs to; a plain ring has only the inner one
  int peer = -1;         // of a transfer or wait
  int64_t start_ns = 0;  // since RankReport::start_monotonic_ns
  int64_t end_ns = 0;
  uint64_t bytes = 0;
  std::string label;  // "kv" or "dkv" for transfers
};

// Seconds of one rank; exposed = active - compute.
struct Timing {
  double wall_seconds = 0;
  double compute_seconds = 0;
  double comm_seconds = 0;    // union of transfer intervals
  double active_seconds = 0;  // union of compute and transfer intervals
  double exposed_comm_seconds = 0;
  double exposed_inner_seconds = 0;
  double exposed_outer_seconds = 0;
  double peer_wait_seconds = 0;  // standing still with no byte moving: a late peer
  uint64_t bytes_inner = 0;      // sent
  uint64_t bytes_outer = 0;
  uint64_t peak_bytes = 0;  // of the worker's ledger, leased shard included

  // 1 - exposed / comm, within [0, 1]; 1 when nothing was communicated.
  double overlap_ratio() const;
};

struct StepTiming {
  int step = 0;
  double compute_seconds = 0;
  double comm_seconds = 0;
  double exposed_seconds = 0;
};

struct RankReport {
  int rank = 0;
  std::string worker;
  std::string node;
  DataPath data_path = DataPath::kMemfd;
  Timing timing;
  std::vector<StepTiming> steps;
  std::vector<TimelineOp> timeline;  // with record_timeline
  int64_t start_monotonic_ns = 0;    // CLOCK_MONOTONIC of the worker's host
};

struct AttendReport {
  std::string request_id;  // names the retained KV in AttendBackward
  std::string group;
  uint64_t epoch = 0;
  std::string plan_digest;
  int steps = 0;
  double wall_seconds = 0;  // of the call as the client saw it
  std::vector<RankReport> ranks;

  // Means over the ranks of their seconds; sums of their bytes; the largest peak.
  Timing Total() const;
};

// What a failed call knew beyond its message: the reason (WORKER_LOST, WORKER_SILENT,
// WORKER_UNREACHABLE, NOT_ENOUGH_WORKERS, ...) and metadata such as rank, worker, step, peer,
// epoch. Empty where the failure carries none.
struct FaultDetail {
  std::string reason;
  std::map<std::string, std::string> metadata;
};
std::optional<FaultDetail> GetFaultDetail(const absl::Status& status);

}  // namespace annulus::client
