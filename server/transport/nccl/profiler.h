// SPDX-License-Identifier: Apache-2.0
#pragma once

// NCCL's own account of when its kernels ran. libannulus-transport-nccl.so is also a profiler
// plugin of NCCL (ncclProfiler_v5, since 2.28): NCCL tells it of every send and receive (P2p) and,
// for each channel of one, when its thread block started and stopped by the GPU's globaltimer
// (KernelCh). README.md says how it is switched on and what it is good for.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace annulus::transport::nccl {

// ncclProfilerEventDescr_v5_t as far as it is read. What follows `rank` depends on the type; here
// it is what a KernelCh has.
struct ProfilerEvent {
  uint64_t type = 0;
  void* parent = nullptr;
  int32_t rank = 0;
  uint8_t channel = 0;
  uint64_t timer_ns = 0;
};
static_assert(offsetof(ProfilerEvent, parent) == 8 && offsetof(ProfilerEvent, rank) == 16);

// ncclProfilerEventStateArgs_v5_t, for a KernelCh.
struct ProfilerState {
  uint64_t timer_ns = 0;
};

// The bits of the types, and the only state that matters.
inline constexpr uint64_t kProfileP2p = 1U << 2;
inline constexpr uint64_t kProfileKernelChannel = 1U << 6;
inline constexpr int kKernelChannelStop = 22;

using NcclLog = void (*)(int level, unsigned long flags, const char* file, int line,
                         const char* format, ...);

// ncclProfiler_v5_t. Results are ncclResult_t, always 0: measuring never fails what is measured.
struct ProfilerV5 {
  const char* name;
  int (*init)(void** context, uint64_t comm_id, int* mask, const char* comm_name, int nodes,
              int size, int index, NcclLog log);
  int (*start_event)(void* context, void** handle, ProfilerEvent* event);
  int (*stop_event)(void* handle);
  int (*record_event_state)(void* handle, int state, ProfilerState* args);
  int (*finalize)(void* context);
};
static_assert(sizeof(ProfilerV5) == 6 * sizeof(void*));

// The table. Its callbacks run on whatever thread NCCL likes: they neither lock, wait nor allocate,
// and take every handle and event, also such as were never given out.
const ProfilerV5* NcclProfiler();

// Has NCCL load this library as its profiler, unless NCCL_PROFILER_PLUGIN says another. Before the
// first communicator of the process.
void OfferProfiler();

// By globaltimer.
struct KernelSpan {
  uint64_t start_ns = 0;
  uint64_t stop_ns = 0;
};

// What NCCL has told of one communicator. Thread safe; also after that is gone.
class ProfiledComm {
 public:
  static constexpr uint64_t kEvents = 2048;  // that many are remembered, the oldest go first

  // Nothing where NCCL runs another profiler or none, or where several of that name and index
  // exist.
  static std::optional<ProfiledComm> Find(std::string_view name, int index);

  // Sends and receives that NCCL has been given so far.
  uint64_t posted() const;
  // From the first start to the last stop of the channels of those after `from` up to `to`, counted
  // as posted() does. Nothing unless each of them is known to have run, and none is known to run.
  std::optional<KernelSpan> SpanOf(uint64_t from, uint64_t to) const;
  // Events that found no room, came too late or had no stamp.
  uint64_t dropped() const;

 private:
  explicit ProfiledComm(int ring) : ring_(ring) {}
  int ring_;
};

// Puts spans of globaltimer on CLOCK_MONOTONIC. Each go bounds the distance of the two clocks: its
// kernels started after it was called, and stopped before its last event was seen to be reached.
// The upper bound errs by how late that was seen, 20 us at most times, and the least of many is
// used; both bounds give way by 500 ppm, the most that CLOCK_MONOTONIC is slewed by.
class GlobaltimerClock {
 public:
  struct Stamps {
    int64_t start_ns = 0;
    int64_t end_ns = 0;
  };
  // called_ns <= start_ns <= end_ns <= seen_ns. `elapsed_ns` is how far the go's own events are
  // apart; a span that is longer is another's, since NCCL keeps 64 stamps a channel: nothing.
  std::optional<Stamps> Map(const KernelSpan& span, int64_t called_ns, int64_t elapsed_ns,
                            int64_t seen_ns);

 private:
  bool bounded_ = false;
  int64_t least_ns_ = 0;  // CLOCK_MONOTONIC less globaltimer
  int64_t most_ns_ = 0;
  int64_t bounded_at_ns_ = 0;
};

}  // namespace annulus::transport::nccl
