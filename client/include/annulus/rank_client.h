// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "annulus/device_memory.h"
#include "annulus/tensor.h"
#include "annulus/types.h"

namespace annulus::client {

struct RankClientOptions {
  std::string coordinator;  // host:port
  // The same on every rank.
  GroupOptions group;
  // The worker beside this process, by name or by address (host:port); one of the two.
  std::string worker;
  std::string worker_address;
  // Tells this job's collectives from those of an earlier one on the same group: any text, the same
  // on every rank. Leave empty if the group does not outlive the job.
  std::string job_id;
  std::string name = "rank";
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration group_timeout = absl::Seconds(30);
};

// Tokens of a rank, in the order of its rows.
struct RankShard {
  std::vector<TokenRange> q;
  std::vector<TokenRange> kv;
  int64_t q_rows() const;
  int64_t kv_rows() const;
};

// This rank's rows: q, o [batch, shard.q_rows(), query_heads, head_dim]; k, v
// [batch, shard.kv_rows(), kv_heads, head_dim]; lse [batch, shard.q_rows(), query_heads] float32.
struct RankAttendCall {
  int64_t query_length = 0;  // of the whole sequence
  int64_t kv_length = 0;
  TensorView q, k, v;
  TensorView o, lse;
};

struct RankAttendBackwardCall {
  int64_t query_length = 0;
  int64_t kv_length = 0;
  TensorView q, k, v, o, lse, d_o;
  TensorView dq, dk, dv;
  std::string forward_request_id;
};

// The SPMD form: N processes, each beside its own worker, call Attend as they would call a
// collective: all of them, in the same order, with the same options. Each hands over only the
// tokens that Shard() says are its own and gets back its own rows of O and LSE (or dQ, dK, dV).
//
//   auto rank = RankClient::Attach({.coordinator = address, .group = {.name = "job", .size = 4},
//                                   .worker = "worker-" + std::to_string(local_rank)});
//   auto shard = (*rank)->Shard(Layout::kZigzag, 4096, 4096);
//   auto q = (*rank)->AllocateTensor(DataType::kBf16, 1, shard->q_rows(), 8, 64);  // fill own rows
//   auto report = (*rank)->Attend({4096, 4096, *q, *k, *v, *o, *lse}, options);
//
// Collectives are matched by number: the calls of a rank are counted from 0, and a call that failed
// keeps its number, so that a retry on every rank meets itself in the group's next epoch. A rank
// that is ahead of the others (its own part ended well while a peer's failed) is never matched with
// another call; set_next_collective brings the ranks together again.
//
// Not thread safe: one collective at a time, as the order is the matching. Errors as in Client.
class RankClient {
 public:
  static absl::StatusOr<std::unique_ptr<RankClient>> Attach(const RankClientOptions& options);
  ~RankClient();
  RankClient(const RankClient&) = delete;
  RankClient& operator=(const RankClient&) = delete;

  int rank() const;
  int size() const;
  uint64_t epoch() const;

  // The tokens that this rank owns under `layout`. INVALID_ARGUMENT for lengths below 1.
  absl::StatusOr<RankShard> Shard(Layout layout, int64_t query_length, int64_t kv_length) const;
  absl::StatusOr<Tensor> AllocateTensor(DataType dtype, int64_t batch, int64_t rows, int32_t heads,
                                        int32_t head_dim);

  // Lets views whose data lies in [data, data + bytes), device addresses of this process, be passed
  // to the calls below: the worker, which must compute on that very device, works on them in place.
  // What the views hold must be there when a call is made, and no work of the caller's own may
  // touch them until it returns. The lease itself is made by the first call; that call ends with
  // FAILED_PRECONDITION and the worker's reason where it cannot be had. INVALID_ARGUMENT: no bytes,
  // more than the allocation has, or no descriptor where the handle says that there is one.
  // After a call that failed while its worker could not be seen to stop, outputs in this memory are
  // refused: it cannot be moved from under a late write. Allocate and lease other memory for them.
  absl::StatusOr<DeviceRegion> LeaseDeviceMemory(void* data, size_t bytes,
                                                 const DeviceMemoryHandle& handle);

  // Reports hold this rank alone.
  absl::StatusOr<AttendReport> Attend(const RankAttendCall& call, const AttendOptions& options);
  absl::StatusOr<AttendReport> AttendBackward(const RankAttendBackwardCall& call,
                                              const AttendOptions& options);
  absl::Status ReleaseRetained(const std::string& request_id);

  uint64_t next_collective() const;
  void set_next_collective(uint64_t number);

 private:
  class Impl;
  explicit RankClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace annulus::client
