// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "server/transport/host/frame.h"
#include "server/transport/host/handle.h"
#include "server/transport/host/unique_fd.h"

namespace annulus::transport {

inline constexpr size_t kGreetingBytes = kFrameBytes + kHelloBytes;

// What a rank thinks of a caller's greeting.
struct Verdict {
  int32_t rank = -1;    // who it is, when welcome
  std::string refusal;  // why not, otherwise; safe to tell the caller
  bool stale = false;   // refused because of its epoch
};

// Judges the bytes of a greeting. Pure. `handles` is the group by rank, `self` our own rank in it.
// A caller must be of a higher rank (the higher rank calls), of our group, epoch and size, and know
// both nonces.
Verdict JudgeGreeting(std::span<const uint8_t, kGreetingBytes> bytes,
                      const std::vector<HandleInfo>& handles, int32_t self, bool over_unix);

// Callers that have been accepted and have not finished their greeting. Strangers cost little:
// their number and their time are bounded.
class Reception {
 public:
  struct Caller {
    UniqueFd fd;
    bool over_unix = false;
    std::array<uint8_t, kGreetingBytes> bytes;
    size_t got = 0;
    UniqueFd passed;  // the descriptor that came along
    int64_t deadline_ns = 0;
  };

  // Accepts whoever waits at `listener` and appends the ids of new callers, to be watched for
  // reading. False when the process has no descriptor or memory left for them.
  bool Accept(int listener, bool over_unix, int64_t now_ns, std::vector<uint32_t>* added);
  int FdOf(uint32_t id) const;
  // Reads on. The caller once his greeting is complete; nothing while it is not. A caller who hung
  // up is forgotten.
  std::optional<Caller> Read(uint32_t id);
  void Expire(int64_t now_ns);
  void Clear() { callers_.clear(); }
  bool empty() const { return callers_.empty(); }

 private:
  std::map<uint32_t, Caller> callers_;  // by age
  uint32_t next_id_ = 0;
};

// Tells a caller why he is not welcome, as far as his socket takes it.
void Refuse(int fd, const Fence& self, const std::string& reason);

}  // namespace annulus::transport
