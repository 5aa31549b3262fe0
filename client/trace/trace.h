// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::trace {

// What every rank did and when: recorded by the workers or predicted by a simulation.

enum class OpKind { kCompute, kSend, kReceive, kWait, kAccumulate, kPrepare, kFinish, kCopy };
enum class Level { kInner, kOuter };

// "compute", "send", ... and back; nothing for another word.
std::string_view OpKindName(OpKind kind);
std::optional<OpKind> ParseOpKind(std::string_view name);
std::string_view LevelName(Level level);
std::optional<Level> ParseLevel(std::string_view name);

bool IsTransfer(OpKind kind);
// Compute in the wide sense: also accumulate, prepare and finish, but no copy.
bool IsCompute(OpKind kind);

// One interval on a rank. All ranks of a trace share one clock; where it starts does not matter.
struct Op {
  OpKind kind = OpKind::kCompute;
  int step = 0;
  Level level = Level::kInner;  // kSend, kReceive, kWait
  int peer = -1;                // kSend, kReceive, kWait
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  uint64_t bytes = 0;
  std::string label;  // "kv", "dkv"; of a compute its slot; of a copy "upload", "download", ...
  friend bool operator==(const Op&, const Op&) = default;
};

struct RankTrace {
  int rank = 0;
  std::string worker;
  std::string node;
  // Share of the communication hidden under compute, as the worker measured it.
  std::optional<double> overlap;
  std::vector<Op> ops;
  friend bool operator==(const RankTrace&, const RankTrace&) = default;
};

struct Trace {
  std::string title;                            // "ring, 4 ranks, 65536 tokens, causal, zigzag"
  std::map<std::string, std::string> metadata;  // plan digest, flags ... for whoever reads the file
  std::vector<RankTrace> ranks;                 // in the order in which they are drawn
  friend bool operator==(const Trace&, const Trace&) = default;
};

// First start and last end over all ranks; {0, 0} without ops.
struct TimeSpan {
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};
TimeSpan SpanOf(const Trace& trace);

// For ops that may overlap: result[i] is the lane, from 0, that ops[i] is drawn in, so that no two
// ops of a lane overlap and as few lanes as possible are used.
std::vector<int> AssignLanes(const std::vector<const Op*>& ops);

}  // namespace annulus::trace
