// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "annulus/tensor.h"
#include "annulus/types.h"

namespace annulus::client {

struct ClientOptions {
  std::string coordinator;      // host:port
  std::string name = "client";  // free text for logs, at most 64 characters
  absl::Duration connect_timeout = absl::Seconds(5);
  // How long EnsureGroup waits for workers.
  absl::Duration group_timeout = absl::Seconds(30);
};

// Sequences in order, token i in row i: q, o [batch, query_length, query_heads, head_dim]; k, v
// [batch, kv_length, kv_heads, head_dim]; lse [batch, query_length, query_heads] float32,
// natural-log. query_heads is a multiple of kv_heads; head_dim 16..256 in steps of 8.
struct AttendCall {
  std::string group = "default";
  TensorView q, k, v;  // read
  // Written. o is of the type of q, or float32: give float32 where a backward follows, since
  // delta = rowsum(dO * O) of a rounded o is what costs a short type its gradients' last digits.
  TensorView o, lse;
};

struct AttendBackwardCall {
  std::string group = "default";
  TensorView q, k, v, o, lse, d_o;  // read; o and lse as the forward wrote them
  TensorView dq, dk, dv;            // written, of the data type of q
  // The forward whose retained KV the backward starts from (AttendReport::request_id of a call with
  // `retain`); empty: the KV makes its way around the ring once more.
  std::string forward_request_id;
};

// Exact attention over the workers of a group, from one controller: the client slices the sequence
// (by reference: nothing is copied on the workers' host when the tensors come from AllocateTensor)
// and calls every worker of the group once.
//
//   auto client = Client::Connect({.coordinator = "127.0.0.1:7000"});
//   if (!client.ok()) return client.status();
//   auto group = (*client)->EnsureGroup({.name = "ring", .size = 4, .window_size = 2});
//   auto q = (*client)->AllocateTensor(DataType::kF32, 1, 4096, 8, 64);  // k, v, o alike
//   auto lse = (*client)->AllocateTensor(DataType::kF32, 1, 4096, 8, 0);
//   auto report = (*client)->Attend({"ring", *q, *k, *v, *o, *lse}, {.mask = {MaskKind::kCausal}});
//
// Thread safe. Calls block until done; every one ends by its deadline + 1 s.
//
// Errors. INVALID_ARGUMENT: shapes, before anything is sent. FAILED_PRECONDITION,
// RESOURCE_EXHAUSTED, UNIMPLEMENTED: the service refused. UNAVAILABLE, ABORTED, DEADLINE_EXCEEDED:
// a fault; GetFaultDetail names rank, worker, step and peer where known. After a fault the next
// call asks for the group's next epoch by itself; outputs of a failed call hold no promise.
// NaN and infinity propagate as IEEE arithmetic has it to the rows they touch.
class Client {
 public:
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Creates the group or joins it, and waits until it is ready. FAILED_PRECONDITION: it exists with
  // other options. UNAVAILABLE (NOT_ENOUGH_WORKERS) after group_timeout. Cached: later calls with
  // the same options cost no RPC until a fault.
  absl::StatusOr<GroupInfo> EnsureGroup(const GroupOptions& options);
  // Idempotent.
  absl::Status DeleteGroup(const std::string& name);

  // Shared memory for a dense [batch, rows, heads, head_dim] tensor (head_dim 0: LSE). Zeroed.
  // INVALID_ARGUMENT on extents, RESOURCE_EXHAUSTED when the system refuses.
  absl::StatusOr<Tensor> AllocateTensor(DataType dtype, int64_t batch, int64_t rows, int32_t heads,
                                        int32_t head_dim);

  // The group must have been ensured by this client.
  absl::StatusOr<AttendReport> Attend(const AttendCall& call, const AttendOptions& options);
  absl::StatusOr<AttendReport> AttendBackward(const AttendBackwardCall& call,
                                              const AttendOptions& options);
  // Drops the KV that a forward with `retain` kept. Idempotent; a backward does not drop it.
  absl::Status ReleaseRetained(const std::string& group, const std::string& request_id);

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace annulus::client
