// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/transport/cuipc/copy_device.h"
#include "server/transport/cuipc/operation.h"
#include "server/transport/cuipc/peer.h"
#include "server/transport/host/handle.h"
#include "server/transport/transport_plugin.h"

namespace annulus::transport::cuipc {

// Transfers between the device memories of one host's processes by the copy engine. README.md tells
// the protocol; docs/adr/0020 why completion goes through the host.
//
// The host transport underneath is the control plane: connecting, heartbeats, deadlines, tags,
// abort and whom to blame are its own. Each transfer of device memory is an offer and an answer
// over it, so an operation here is outstanding exactly while one is there, and fails when that
// fails. Host memory goes through it as it is.
//
// One thread per transport drives everything; it sleeps until the host transport completes
// something, or, while copies are under way, for a few microseconds at a time.
class CuipcTransport {
 public:
  // `why` says what is wrong, in words.
  static annulusTransportStatus Open(const annulusTransportOptions& options,
                                     std::unique_ptr<CuipcTransport>* transport,
                                     annulusTransportHandle* handle, std::string* why);
  // Closes: aborts when operations are outstanding.
  ~CuipcTransport();
  CuipcTransport(const CuipcTransport&) = delete;
  CuipcTransport& operator=(const CuipcTransport&) = delete;

  annulusTransportStatus Connect(const annulusTransportHandle* handles, int64_t deadline_ns);
  annulusTransportStatus Deregister(void* data);
  annulusTransportStatus Post(bool is_send, int32_t peer, uint64_t tag,
                              const annulusSegment* segments, size_t segment_count,
                              int64_t deadline_ns, OperationPtr* operation);
  void Abort(const char* reason);
  void LastError(char* text, size_t text_bytes, int32_t* peer);
  void Stats(annulusTransportStats* stats);
  void SetNotify(void (*notify)(void*), void* context);
  const char* Path(int32_t peer);

 private:
  struct Forgetting {
    uint64_t id = 0;
    bool begun = false;
    bool done = false;
  };

  CuipcTransport(const annulusTransportOptions& options, std::unique_ptr<CopyDevice> device);

  // join.cc: the side channels, on the thread that connects.
  // "" where all peers are on this host. `infos`: as handles_; shorter where a handle is none.
  std::string CheckHosts(const annulusTransportHandle* handles,
                         std::vector<HandleInfo>* infos) const;
  annulusTransportStatus Join(int64_t deadline_ns);
  bool IsPeer(int32_t rank) const {
    return rank != rank_ && !IsAbsent(handles_[static_cast<size_t>(rank)]);
  }
  // Whether every peer has its side channel.
  bool AllSides() const;
  std::string MissingSides() const;
  bool DialLower(std::string* why);
  bool AdmitCallers(std::string* why);

  // progress.cc
  void Run();
  int64_t SleepNs() const;
  void WaitForWork();
  bool TakeInbox();
  void HearPeers();
  void AdvanceAll();
  void ForgetAll();
  void EndSides();
  // True when the operation went a stage further.
  bool Advance(Operation* operation);
  bool OnHostMemory(Operation* operation);
  void Conclude(Operation* operation, annulusTransportStatus status, int64_t start_ns,
                int64_t end_ns);
  bool ReturnRequests(Operation* operation);

  // receiving.cc
  bool OnSharing(Operation* operation);
  bool OnOffered(Operation* operation);
  bool OnQuieting(Operation* operation);
  void OnReceiveEnd(Operation* operation, annulusTransportStatus status);
  void NoteReceive(const Operation& operation, const Answer& answer);

  // sending.cc
  bool OnAwaitsOffer(Operation* operation);
  bool OnAwaitsPieces(Operation* operation);
  bool OnCopying(Operation* operation);
  bool OnAnswering(Operation* operation);
  void Match(Operation* operation);
  absl::Status StartCopies(Operation* operation, bool* withdrawn);
  void OnCopiesUnknown(Operation* operation, annulusTransportStatus status, const std::string& why);
  void OnCopyFailure(Operation* operation, const absl::Status& status);
  void Reply(Operation* operation);

  // Requests of the host transport. Post: false, with the operation concluded, when none is left.
  bool PostHost(Operation* operation, bool is_send, uint64_t tag, void* data, size_t bytes,
                annulusRequest** request);
  bool Take(annulusRequest** request, annulusTransportStatus* status);
  // Whether to stop waiting for copies of a failed operation, a second after it failed.
  bool GivesUp(Operation* operation, bool failed);
  void NoteLate(const Operation& operation);
  // Memory that stays dangerous is told besides what failed first.
  void NoteUnsafe(int32_t peer, const std::string& text);
  void SetError(int32_t peer, std::string text);
  void Wake();
  Peer* peer(int32_t rank) { return peers_[static_cast<size_t>(rank)].get(); }

  const annulusTransportV1* const host_;
  annulusTransport* control_ = nullptr;
  const std::unique_ptr<CopyDevice> device_;
  const int32_t rank_;
  const int32_t size_;
  HandleInfo self_;
  UniqueFd listener_;
  UniqueFd wake_;
  std::vector<HandleInfo> handles_;           // by rank, absent: no peer; written once, by Connect
  std::vector<std::unique_ptr<Peer>> peers_;  // by rank, null: no peer; the progress thread's
  std::vector<SideChannel::Caller> callers_;

  std::mutex mutex_;
  std::condition_variable forgotten_;
  bool connected_ = false;
  std::vector<OperationPtr> posted_;
  std::list<Forgetting> forgetting_;
  bool aborted_ = false;
  bool closing_ = false;
  std::string error_text_;
  int32_t error_peer_ = -1;
  annulusTransportStats stats_{};
  void (*notify_)(void*) = nullptr;
  void* notify_context_ = nullptr;
  std::atomic<int64_t> outstanding_{0};

  // The progress thread's own.
  std::list<OperationPtr> operations_;
  std::set<std::pair<int32_t, uint64_t>> receiving_;  // peer and tag of each receive in flight
  bool cut_short_ = false;                            // aborted or closing
  bool completed_some_ = false;

  std::thread thread_;
};

}  // namespace annulus::transport::cuipc
