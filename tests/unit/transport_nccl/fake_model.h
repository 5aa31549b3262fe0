// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the model of NCCL and CUDA is made of; for its own sources.

#include "tests/unit/transport_nccl/fake_gpu.h"

namespace annulus::transport::nccl {

struct FakeGpu::Transfer {
  FakeComm* comm = nullptr;
  bool is_send = false;
  int peer = 0;
  char* data = nullptr;
  size_t bytes = 0;
  size_t moved = 0;
  int lazy = 0;  // turns before it moves
  bool never = false;
  bool damaged = false;
  bool done = false;
  void* event = nullptr;  // the profiler's
  void* channel = nullptr;
};

// A send or receive waits at (source, destination) for its counterpart.
struct FakeGpu::World {
  int size = 0;
  int joined = 0;
  std::map<std::pair<int, int>, std::deque<TransferPtr>> sends;
  std::map<std::pair<int, int>, std::deque<TransferPtr>> receives;
};

struct FakeGpu::FakeComm {
  World* world = nullptr;
  int index = 0;
  int busy = 0;  // so many more times AsyncError says that it is in progress
  bool up = false;
  bool revoked = false;
  Result broken = Result::kSuccess;
  void* profiler = nullptr;  // its context; null without
};

struct FakeGpu::FakeEvent {
  bool recorded = false;
  bool reached = false;
  int64_t reached_ns = 0;
};

struct FakeGpu::Item {
  FakeEvent* event = nullptr;  // or
  void* to = nullptr;          // a copy, or
  const void* from = nullptr;
  size_t bytes = 0;
  FakeComm* comm = nullptr;  // a group
  std::vector<TransferPtr> transfers;
  bool posted = false;
};

struct FakeGpu::FakeStream {
  std::deque<Item> items;
};

}  // namespace annulus::transport::nccl
