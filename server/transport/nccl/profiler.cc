// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/profiler.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <functional>

namespace annulus::transport::nccl {
namespace {

constexpr int kRings = 16;  // communicators of this process at a time
constexpr int kLogInfo = 3;
constexpr uint64_t kClaimed = ~uint64_t{0};
constexpr int64_t kGrainNs = 1'000'000;  // of globaltimer, at its coarsest
constexpr int64_t kSlewDivisor = 2000;   // 500 ppm

// A P2p event. Its word says whose the slot is and how many still hold it: ticket, a bit for the
// event itself until NCCL stops it (which means enqueued, not done), and a count of its running
// channels and of readers. The rest is written and read only under a hold.
struct Slot {
  static constexpr int kTicketShift = 16;
  static constexpr uint64_t kSelf = 1U << 15;
  static constexpr uint64_t kHolders = kSelf - 1;

  std::atomic<uint64_t> word;
  std::atomic<uint64_t> start_ns;
  std::atomic<uint64_t> stop_ns;
  std::atomic<uint32_t> started;
  std::atomic<uint32_t> stopped;

  bool Claim(uint64_t ticket) {
    uint64_t free = word.load(std::memory_order_acquire);
    if ((free & (kSelf | kHolders)) != 0 ||
        !word.compare_exchange_strong(free, kSelf, std::memory_order_acq_rel)) {
      return false;
    }
    start_ns.store(~uint64_t{0}, std::memory_order_relaxed);
    stop_ns.store(0, std::memory_order_relaxed);
    started.store(0, std::memory_order_relaxed);
    stopped.store(0, std::memory_order_relaxed);
    word.store(ticket << kTicketShift | kSelf, std::memory_order_release);
    return true;
  }
  template <typename Next>
  bool Change(uint64_t ticket, Next next) {
    uint64_t now = word.load(std::memory_order_acquire);
    while (now >> kTicketShift == ticket) {
      const uint64_t then = next(now);
      if (then == now) return false;
      if (word.compare_exchange_weak(now, then, std::memory_order_acq_rel)) return true;
    }
    return false;
  }
  bool Hold(uint64_t ticket) {
    return Change(ticket, [](uint64_t w) { return (w & kHolders) == kHolders ? w : w + 1; });
  }
  void LetGo(uint64_t ticket) {
    Change(ticket, [](uint64_t w) { return (w & kHolders) == 0 ? w : w - 1; });
  }
  void StopSelf(uint64_t ticket) {
    Change(ticket, [](uint64_t w) { return w & ~kSelf; });
  }
};

// Tickets go on from one communicator to the next: a handle of the last one fits no slot of this.
struct Ring {
  std::atomic<uint64_t> key;  // 0: free
  std::atomic<uint64_t> posted;
  std::atomic<uint64_t> dropped;
  std::atomic<NcclLog> log;
  std::array<Slot, ProfiledComm::kEvents> slots;

  Slot& At(uint64_t ticket) { return slots[ticket % slots.size()]; }
};

std::array<Ring, kRings> rings;

// Handles are numbers, so that none can lead astray: ticket, ring, kind. 0 is NCCL's "none".
enum class Kind : uint64_t { kNone = 0, kP2p = 1, kChannel = 2 };
struct Handle {
  uint64_t ticket = 0;
  size_t ring = 0;
  Kind kind = Kind::kNone;

  explicit Handle(const void* opaque) {
    const auto number = std::bit_cast<uint64_t>(opaque);
    ticket = number >> 6;
    ring = number >> 2 & (kRings - 1);
    kind = static_cast<Kind>(number & 3);
  }
  static void* Of(uint64_t ticket, size_t ring, Kind kind) {
    return std::bit_cast<void*>(ticket << 6 | ring << 2 | static_cast<uint64_t>(kind));
  }
  Slot& slot() const { return rings[ring].At(ticket); }
};

uint64_t KeyOf(std::string_view name, int index) {
  const uint64_t key = std::hash<std::string_view>()(name) * 31 + static_cast<uint64_t>(index);
  return key == 0 || key == kClaimed ? 1 : key;
}

void Drop(Ring& ring) { ring.dropped.fetch_add(1, std::memory_order_relaxed); }

int Init(void** context, uint64_t, int* mask, const char* comm_name, int, int, int index,
         NcclLog log) {
  *context = nullptr;
  // One mask for the whole process, and the same from its first communicator on: NCCL's counters
  // of the two sides would drift apart for ever.
  *mask = static_cast<int>(kProfileP2p | kProfileKernelChannel);
  for (size_t i = 0; i < rings.size(); ++i) {
    uint64_t free = 0;
    if (!rings[i].key.compare_exchange_strong(free, kClaimed, std::memory_order_acq_rel)) continue;
    for (Slot& slot : rings[i].slots) slot.word.store(0, std::memory_order_relaxed);
    rings[i].dropped.store(0, std::memory_order_relaxed);
    rings[i].log.store(log, std::memory_order_relaxed);
    rings[i].key.store(KeyOf(comm_name == nullptr ? "" : comm_name, index),
                       std::memory_order_release);
    *context = std::bit_cast<void*>(i + 1);
    break;
  }
  return 0;
}

void* StartP2p(size_t at) {
  const uint64_t ticket = rings[at].posted.fetch_add(1, std::memory_order_acq_rel) + 1;
  if (rings[at].At(ticket).Claim(ticket)) return Handle::Of(ticket, at, Kind::kP2p);
  Drop(rings[at]);
  return nullptr;
}

void* StartChannel(const ProfilerEvent& event) {
  const Handle parent(event.parent);
  if (parent.kind != Kind::kP2p) return nullptr;
  Slot& slot = parent.slot();
  if (!slot.Hold(parent.ticket)) {
    Drop(rings[parent.ring]);
    return nullptr;
  }
  slot.started.fetch_add(1, std::memory_order_relaxed);
  if (event.timer_ns == 0) {  // lost by NCCL: it never stops, and the span stays unknown
    Drop(rings[parent.ring]);
    slot.LetGo(parent.ticket);
    return nullptr;
  }
  uint64_t first = slot.start_ns.load(std::memory_order_relaxed);
  while (event.timer_ns < first &&
         !slot.start_ns.compare_exchange_weak(first, event.timer_ns, std::memory_order_relaxed)) {
  }
  return Handle::Of(parent.ticket, parent.ring, Kind::kChannel);
}

int StartEvent(void* context, void** handle, ProfilerEvent* event) {
  if (handle == nullptr) return 0;
  *handle = nullptr;
  const auto ring = std::bit_cast<size_t>(context) - 1;
  if (event == nullptr || ring >= rings.size()) return 0;
  if (event->type == kProfileP2p) *handle = StartP2p(ring);
  if (event->type == kProfileKernelChannel) *handle = StartChannel(*event);
  return 0;
}

int StopEvent(void* opaque) {
  const Handle handle(opaque);
  if (handle.kind == Kind::kP2p) handle.slot().StopSelf(handle.ticket);
  if (handle.kind == Kind::kChannel) handle.slot().LetGo(handle.ticket);
  return 0;
}

int RecordEventState(void* opaque, int state, ProfilerState* args) {
  const Handle handle(opaque);
  if (handle.kind != Kind::kChannel || state != kKernelChannelStop || args == nullptr ||
      args->timer_ns == 0 || !handle.slot().Hold(handle.ticket)) {
    return 0;
  }
  Slot& slot = handle.slot();
  uint64_t last = slot.stop_ns.load(std::memory_order_relaxed);
  while (args->timer_ns > last &&
         !slot.stop_ns.compare_exchange_weak(last, args->timer_ns, std::memory_order_relaxed)) {
  }
  slot.stopped.fetch_add(1, std::memory_order_relaxed);
  slot.LetGo(handle.ticket);
  return 0;
}

int Finalize(void* context) {
  const auto at = std::bit_cast<size_t>(context) - 1;
  if (at >= rings.size()) return 0;
  const NcclLog log = rings[at].log.load(std::memory_order_relaxed);
  const uint64_t dropped = rings[at].dropped.load(std::memory_order_relaxed);
  if (log != nullptr && dropped > 0) {
    log(kLogInfo, ~0UL, __FILE__, __LINE__, "annulus: %llu profiler events dropped",
        static_cast<unsigned long long>(dropped));
  }
  rings[at].key.store(0, std::memory_order_release);
  return 0;
}

}  // namespace

const ProfilerV5* NcclProfiler() {
  static constexpr ProfilerV5 table = {"annulus",        Init,    StartEvent, StopEvent,
                                       RecordEventState, Finalize};
  return &table;
}

void OfferProfiler() {
  Dl_info self = {};
  if (::dladdr(&rings, &self) != 0) ::setenv("NCCL_PROFILER_PLUGIN", self.dli_fname, 0);
}

std::optional<ProfiledComm> ProfiledComm::Find(std::string_view name, int index) {
  std::optional<ProfiledComm> found;
  for (int i = 0; i < kRings; ++i) {
    if (rings[static_cast<size_t>(i)].key.load(std::memory_order_acquire) != KeyOf(name, index)) {
      continue;
    }
    if (found.has_value()) return std::nullopt;
    found = ProfiledComm(i);
  }
  return found;
}

uint64_t ProfiledComm::posted() const {
  return rings[static_cast<size_t>(ring_)].posted.load(std::memory_order_acquire);
}

uint64_t ProfiledComm::dropped() const {
  return rings[static_cast<size_t>(ring_)].dropped.load(std::memory_order_relaxed);
}

std::optional<KernelSpan> ProfiledComm::SpanOf(uint64_t from, uint64_t to) const {
  KernelSpan all{~uint64_t{0}, 0};
  for (uint64_t ticket = from + 1; ticket <= to; ++ticket) {
    Slot& slot = rings[static_cast<size_t>(ring_)].At(ticket);
    if (!slot.Hold(ticket)) return std::nullopt;
    const uint32_t stopped = slot.stopped.load(std::memory_order_relaxed);
    const bool whole = stopped > 0 && stopped == slot.started.load(std::memory_order_relaxed);
    all.start_ns = std::min(all.start_ns, slot.start_ns.load(std::memory_order_relaxed));
    all.stop_ns = std::max(all.stop_ns, slot.stop_ns.load(std::memory_order_relaxed));
    slot.LetGo(ticket);
    if (!whole) return std::nullopt;
  }
  if (from >= to) return std::nullopt;
  all.stop_ns = std::max(all.start_ns, all.stop_ns);  // NCCL may see the end before the start
  return all;
}

std::optional<GlobaltimerClock::Stamps> GlobaltimerClock::Map(const KernelSpan& span,
                                                              int64_t called_ns, int64_t elapsed_ns,
                                                              int64_t seen_ns) {
  const auto start = static_cast<int64_t>(span.start_ns);
  const auto stop = static_cast<int64_t>(span.stop_ns);
  const int64_t least = called_ns - start;
  const int64_t most = seen_ns - stop;
  if (least > most || stop - start > elapsed_ns + kGrainNs) return std::nullopt;
  const int64_t slew = bounded_ ? (seen_ns - bounded_at_ns_) / kSlewDivisor + 1 : 0;
  least_ns_ = bounded_ ? std::max(least_ns_ - slew, least) : least;
  most_ns_ = bounded_ ? std::min(most_ns_ + slew, most) : most;
  if (least_ns_ > most_ns_) {  // a clock was set, or a stamp was another's
    least_ns_ = least;
    most_ns_ = most;
  }
  bounded_ = true;
  bounded_at_ns_ = seen_ns;
  return Stamps{start + most_ns_, stop + most_ns_};
}

}  // namespace annulus::transport::nccl
