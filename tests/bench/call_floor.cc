// SPDX-License-Identifier: Apache-2.0
// call_floor COORDINATOR: what a call costs beside its compute, through the C++ client with memory
// in place.
//   1. p50 of a tiny call (N = 2, S = 16, one head of 64, f32).
//   2. the share of wall time not spent in compute at S = 8192 per worker (N = 2).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "annulus/client.h"

namespace client = annulus::client;

namespace {

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(value);
}

// Wall seconds of each call and, in `compute_share`, the mean over ranks of compute / wall.
std::vector<double> Time(client::Client& service, int64_t length, int heads, int calls,
                         double* compute_share) {
  std::vector<client::Tensor> tensors;
  for (int i = 0; i < 4; ++i) {
    tensors.push_back(Must(service.AllocateTensor(client::DataType::kF32, 1, length, heads, 64)));
    for (size_t j = 0; j < tensors[i].bytes() / sizeof(float); ++j) {
      tensors[i].as<float>()[j] = static_cast<float>((j * 2654435761u) % 1000) / 500.0f - 1.0f;
    }
  }
  client::Tensor lse = Must(service.AllocateTensor(client::DataType::kF32, 1, length, heads, 0));
  std::vector<double> wall;
  for (int i = 0; i < calls; ++i) {
    auto report =
        Must(service.Attend({"floor", tensors[0], tensors[1], tensors[2], tensors[3], lse}, {}));
    wall.push_back(report.wall_seconds);
    *compute_share = report.Total().compute_seconds / report.wall_seconds;
  }
  std::sort(wall.begin(), wall.end());
  return wall;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: call_floor HOST:PORT (of a coordinator with two workers)\n");
    return 2;
  }
  auto service = Must(client::Client::Connect({.coordinator = argv[1]}));
  Must(service->EnsureGroup({.name = "floor", .size = 2}));
  double share = 0;
  std::vector<double> tiny = Time(*service, 16, 1, 2000, &share);
  std::printf("tiny call (N = 2, S = 16): p50 %.0f us, p99 %.0f us, min %.0f us over %zu calls\n",
              1e6 * tiny[tiny.size() / 2], 1e6 * tiny[tiny.size() * 99 / 100], 1e6 * tiny.front(),
              tiny.size());
  std::vector<double> large = Time(*service, 16384, 2, 5, &share);
  std::printf("S = 8192 per worker (N = 2): wall %.3f s, %.2f %% of it not in compute\n",
              large.front(), 100 * (1 - share));
  return 0;
}
