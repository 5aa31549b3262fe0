// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/transport/cuipc/copy_device.h"
#include "server/transport/cuipc/slot_table.h"
#include "server/transport/host/handle.h"
#include "server/transport/host/unique_fd.h"

// The UNIX socket between two ranks, beside the host transport's link: descriptors travel over it,
// and it tells a process of this host from one of another. Messages are whole (SOCK_SEQPACKET) and
// in order; what was sent is there for the peer before anything that it hears of later.
namespace annulus::transport::cuipc {

enum class NewsType : uint32_t {
  kNone = 0,       // nothing there now
  kExport = 1,     // an allocation that offers may name from now on
  kForget = 2,     // an allocation that no offer will name again; its mapping can go
  kForgotten = 3,  // answers kForget: it is not mapped any more
  kEnd = 4,        // the peer closes, or is gone: none of its memory may be mapped any longer
};

struct News {
  NewsType type = NewsType::kNone;
  SharedMemory memory;  // of kForget and kForgotten only the id
};

class SideChannel {
 public:
  // Listens under a name that the handle tells.
  static UniqueFd Listen(const HandleInfo& self, int backlog);

  // Calls `peer`, shows that it knows both handles, and shares a slot table. Null with `why`.
  static std::unique_ptr<SideChannel> Dial(const HandleInfo& self, const HandleInfo& peer,
                                           std::string* why);
  // A caller, and how far it got with its greeting.
  struct Caller {
    UniqueFd fd;
  };
  // Reads the greeting of a caller. Null with an empty `why`: not there yet; otherwise refused.
  // `rank`: which of `handles` it is; never one that is absent.
  static std::unique_ptr<SideChannel> Admit(Caller* caller, const HandleInfo& self,
                                            const std::vector<HandleInfo>& handles, int32_t* rank,
                                            std::string* why);

  int fd() const { return fd_.get(); }
  SlotTable* slots() { return slots_.get(); }
  // Whether the peer is this very process; then CUDA has no handles to open.
  bool own_process() const { return own_process_; }
  // Whether the peer's process is known to have ended, and with it everything that it had enqueued:
  // its descriptors, those of the GPU's driver among them, were closed before this turns true.
  bool peer_ended() const;

  // False: no room now, try again. A peer that is gone takes everything.
  bool Tell(NewsType type, const SharedMemory& memory);
  News Next();
  // Says that this side closes: the peer hears kEnd.
  void End();

 private:
  SideChannel(UniqueFd fd, std::unique_ptr<SlotTable> slots);

  UniqueFd fd_;
  std::unique_ptr<SlotTable> slots_;
  UniqueFd process_;  // pidfd of the peer; none where the system does not tell
  bool own_process_ = false;
};

}  // namespace annulus::transport::cuipc
