// SPDX-License-Identifier: Apache-2.0
// spmd_attention HOST:PORT WORKER[,WORKER...] [RANK]: attention as training does it, one process
// per worker. Without RANK it starts the processes itself. Each holds only the tokens that its rank
// owns, calls Attend and AttendBackward as collectives and compares its own rows with the
// definition.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "absl/strings/str_split.h"
#include "annulus/rank_client.h"
#include "client/examples/naive_attention.h"

using annulus::client::AttendOptions;
using annulus::client::DataType;
using annulus::client::Layout;
using annulus::client::MaskKind;
using annulus::client::RankClient;
using annulus::client::RankClientOptions;
using annulus::client::Tensor;
using annulus::client::TokenRange;

namespace {

constexpr int64_t kLength = 101;  // odd: the ranks' shards differ in size
constexpr int kHeads = 2;
constexpr int kHeadDim = 32;

std::vector<int64_t> Tokens(const std::vector<TokenRange>& ranges) {
  std::vector<int64_t> tokens;
  for (const TokenRange& range : ranges) {
    for (int64_t t = range.begin; t < range.end; t += range.stride) tokens.push_back(t);
  }
  return tokens;
}

// Copies this rank's rows of the whole tensor.
void CopyRows(const std::vector<float>& whole, const std::vector<int64_t>& tokens,
              const Tensor& to) {
  constexpr int64_t kRow = kHeads * kHeadDim;
  for (size_t row = 0; row < tokens.size(); ++row) {
    std::copy_n(whole.data() + tokens[row] * kRow, kRow,
                to.as<float>() + static_cast<int64_t>(row) * kRow);
  }
}

double LargestError(const Tensor& got, const std::vector<int64_t>& tokens,
                    const std::vector<double>& whole) {
  const int64_t width = kHeads * std::max(got.view().head_dim, 1);
  double worst = 0;
  for (size_t row = 0; row < tokens.size(); ++row) {
    for (int64_t i = 0; i < width; ++i) {
      const double want = whole[static_cast<size_t>(tokens[row] * width + i)];
      worst =
          std::max(worst, std::abs(got.as<float>()[static_cast<int64_t>(row) * width + i] - want));
    }
  }
  return worst;
}

absl::Status RunRank(const char* coordinator, const std::vector<std::string>& workers, int index) {
  RankClientOptions attach;
  attach.coordinator = coordinator;
  attach.group.name = "spmd-attention";
  attach.group.size = static_cast<int>(workers.size());
  attach.group.members = workers;
  attach.worker = workers[static_cast<size_t>(index)];
  const char* job = std::getenv("SPMD_JOB_ID");
  attach.job_id = job == nullptr ? "" : job;
  auto rank = RankClient::Attach(attach);
  if (!rank.ok()) return rank.status();

  auto shard = (*rank)->Shard(Layout::kZigzag, kLength, kLength);
  if (!shard.ok()) return shard.status();
  const std::vector<int64_t> tokens = Tokens(shard->q);  // the same for q and kv here
  const examples::Sequence sequence = examples::MakeSequence(kLength, kHeads, kHeadDim);
  Tensor q, k, v, d_o, o, dq, dk, dv;
  for (Tensor* tensor : {&q, &k, &v, &d_o, &o, &dq, &dk, &dv}) {
    auto allocated = (*rank)->AllocateTensor(DataType::kF32, 1, shard->q_rows(), kHeads, kHeadDim);
    if (!allocated.ok()) return allocated.status();
    *tensor = *allocated;
  }
  auto lse = (*rank)->AllocateTensor(DataType::kF32, 1, shard->q_rows(), kHeads, 0);
  if (!lse.ok()) return lse.status();
  CopyRows(sequence.q, tokens, q);
  CopyRows(sequence.k, tokens, k);
  CopyRows(sequence.v, tokens, v);
  CopyRows(sequence.d_o, tokens, d_o);

  AttendOptions options;
  options.mask.kind = MaskKind::kCausal;
  options.retain = true;
  auto forward = (*rank)->Attend({kLength, kLength, q, k, v, o, *lse}, options);
  if (!forward.ok()) return forward.status();
  auto backward = (*rank)->AttendBackward(
      {kLength, kLength, q, k, v, o, *lse, d_o, dq, dk, dv, forward->request_id}, options);
  if (!backward.ok()) return backward.status();

  const examples::NaiveResult expected = examples::NaiveCausalAttention(sequence);
  const double worst =
      std::max({LargestError(o, tokens, expected.o), LargestError(*lse, tokens, expected.lse),
                LargestError(dq, tokens, expected.dq), LargestError(dk, tokens, expected.dk),
                LargestError(dv, tokens, expected.dv)});
  std::printf("rank %d of %d: %zu tokens, largest error %.1e\n", (*rank)->rank(), (*rank)->size(),
              tokens.size(), worst);
  return worst < 1e-5 ? absl::OkStatus() : absl::DataLossError("the answer is wrong");
}

int RunRankMain(const char* coordinator, const std::vector<std::string>& workers, int index) {
  const absl::Status status = RunRank(coordinator, workers, index);
  if (!status.ok()) std::fprintf(stderr, "rank %d: %s\n", index, status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

// One process per rank; 0 if all of them succeed.
int RunAll(const char* coordinator, const std::vector<std::string>& workers) {
  // What tells this job from an earlier one on the same cluster.
  setenv("SPMD_JOB_ID", std::to_string(getpid()).c_str(), 1);
  for (size_t index = 0; index < workers.size(); ++index) {
    if (fork() == 0) std::exit(RunRankMain(coordinator, workers, static_cast<int>(index)));
  }
  int failed = 0;
  for (size_t index = 0; index < workers.size(); ++index) {
    int ended = 0;
    failed |= wait(&ended) < 0 || ended != 0;
  }
  return failed;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fprintf(stderr, "usage: spmd_attention HOST:PORT WORKER[,WORKER...] [RANK]\n");
    return 2;
  }
  const std::vector<std::string> workers = absl::StrSplit(argv[2], ',');
  return argc == 4 ? RunRankMain(argv[1], workers, std::atoi(argv[3])) : RunAll(argv[1], workers);
}
