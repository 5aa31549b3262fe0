// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "annulus/client.h"
#include "client/cli/flags.h"
#include "client/io/tensor_file.h"

namespace annulus::cli {

// The shape of what is computed.
struct Problem {
  int64_t batch = 1;
  int64_t query_length = 4096;
  int64_t kv_length = 4096;
  int query_heads = 8;
  int kv_heads = 8;
  int head_dim = 64;
  client::DataType dtype = client::DataType::kF32;
};

// Whether do, the gradient that a backward starts from, is drawn: there is none in the input.
bool DrawsGradient(const std::optional<io::TensorFile>& input);

// From the flags, or from q and k of the input, which then must agree with every flag that was
// given. Usage errors: head counts, head sizes, a missing or misfit tensor, a wrong type, more
// memory than this machine has, a seed where nothing is drawn.
absl::StatusOr<Problem> ResolveProblem(const RunFlags& flags,
                                       const std::optional<io::TensorFile>& input);

// Usage errors that name the flag: head counts and sizes that nothing can run, and tensors (with
// `backward` those of the gradients too) that could only end in the system running out of memory.
absl::Status CheckProblem(const Problem& problem, bool backward);

// Everything a run reads and writes, in memory shared with the workers.
struct ProblemTensors {
  client::Tensor q, k, v, lse;
  client::Tensor o;        // of the inputs' type: what is written out
  client::Tensor o_exact;  // what the service writes: float32 with --backward, else o itself
  client::Tensor d_o, dq, dk, dv;  // with --backward
  bool d_o_generated = false;
};

// Inputs copied from the file, or drawn from N(0,1) by the seed: each tensor from a stream of its
// own, the same on every machine and for every number of ranks.
absl::StatusOr<ProblemTensors> MakeTensors(client::Client* client, const Problem& problem,
                                           const RunFlags& flags,
                                           const std::optional<io::TensorFile>& input);

// o = o_exact rounded to the inputs' type.
void RoundOutput(const ProblemTensors& tensors);

// Writes o and lse (and dq, dk, dv, and d_o where it was drawn) to --output.
absl::Status WriteOutputs(const RunFlags& flags, const ProblemTensors& tensors);
// Whether WriteOutputs could, before the work.
absl::Status CheckOutputs(const RunFlags& flags, const Problem& problem, bool d_o_generated);

}  // namespace annulus::cli
