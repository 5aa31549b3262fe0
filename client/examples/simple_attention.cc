// SPDX-License-Identifier: Apache-2.0
// simple_attention HOST:PORT WORKERS: causal attention over a ring from one program. Start a
// cluster with `annulus up` and give it the coordinator's address and the number of workers.
// Exits 0 if the answer is that of the definition.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "annulus/client.h"
#include "client/examples/naive_attention.h"

using annulus::client::AttendOptions;
using annulus::client::Client;
using annulus::client::DataType;
using annulus::client::MaskKind;
using annulus::client::Tensor;

namespace {

constexpr int64_t kLength = 96;
constexpr int kHeads = 2;
constexpr int kHeadDim = 32;

absl::Status Run(const char* coordinator, int workers) {
  auto client = Client::Connect({.coordinator = coordinator});
  if (!client.ok()) return client.status();
  auto group = (*client)->EnsureGroup({.name = "simple-attention", .size = workers});
  if (!group.ok()) return group.status();

  // Memory that the workers of this host use in place: nothing is copied.
  Tensor q, k, v, o;
  for (Tensor* tensor : {&q, &k, &v, &o}) {
    auto allocated = (*client)->AllocateTensor(DataType::kF32, 1, kLength, kHeads, kHeadDim);
    if (!allocated.ok()) return allocated.status();
    *tensor = *allocated;
  }
  auto lse = (*client)->AllocateTensor(DataType::kF32, 1, kLength, kHeads, 0);
  if (!lse.ok()) return lse.status();
  const examples::Sequence sequence = examples::MakeSequence(kLength, kHeads, kHeadDim);
  std::copy(sequence.q.begin(), sequence.q.end(), q.as<float>());
  std::copy(sequence.k.begin(), sequence.k.end(), k.as<float>());
  std::copy(sequence.v.begin(), sequence.v.end(), v.as<float>());

  AttendOptions options;
  options.mask.kind = MaskKind::kCausal;
  auto report = (*client)->Attend({"simple-attention", q, k, v, o, *lse}, options);
  if (!report.ok()) return report.status();

  const examples::NaiveResult expected = examples::NaiveCausalAttention(sequence);
  double worst = 0;
  for (size_t i = 0; i < expected.o.size(); ++i) {
    worst = std::max(worst, std::abs(o.as<float>()[i] - expected.o[i]));
  }
  for (size_t i = 0; i < expected.lse.size(); ++i) {
    worst = std::max(worst, std::abs(lse->as<float>()[i] - expected.lse[i]));
  }
  std::printf("%zu ranks, %.3f ms, overlap %.0f %%, largest error %.1e\n", report->ranks.size(),
              1e3 * report->wall_seconds, 100 * report->Total().overlap_ratio(), worst);
  return worst < 1e-5 ? absl::OkStatus() : absl::DataLossError("the answer is wrong");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: simple_attention HOST:PORT WORKERS\n");
    return 2;
  }
  const absl::Status status = Run(argv[1], std::atoi(argv[2]));
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
