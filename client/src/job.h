// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "annulus/types.h"
#include "server/ring/plan.h"

namespace annulus::client {

enum class Role { kQ, kK, kV, kDo, kO, kLse, kDq, kDk, kDv };

// "q", "k", ... as in file formats and messages.
const char* RoleName(Role role);

// One tensor of a call. Row i of the view holds the i-th token of `tokens`.
struct Operand {
  Role role = Role::kQ;
  TensorView view;
  bool query_side = true;  // rows are queries; else keys
  bool written = false;    // by the workers; else read
  ring::TokenRanges tokens;
};

// One call of either form of the client, ready to be executed on a group.
struct Job {
  std::string group;
  ring::Spec spec;  // context_parallel_size and window_size come from the group
  AttendOptions options;
  int64_t batch = 1;
  int query_heads = 1;
  int kv_heads = 1;
  int head_dim = 64;
  DataType dtype = DataType::kF32;
  std::string forward_request_id;
  std::vector<Operand> operands;
  int only_rank = -1;  // -1: every rank of the group
  // The request's id at an epoch: a new one per attempt, or the collective's.
  std::function<std::string(uint64_t epoch)> request_id;
};

// INVALID_ARGUMENT with what was expected and what was got: extents, heads, head size, data types
// or missing memory. `query_rows` and `kv_rows` are the rows that the views must have.
absl::Status CheckJob(const Job& job, int64_t query_rows, int64_t kv_rows);

}  // namespace annulus::client
