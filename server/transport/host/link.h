// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "server/transport/host/crc32c.h"
#include "server/transport/host/frame.h"
#include "server/transport/host/operation.h"
#include "server/transport/host/out_queue.h"
#include "server/transport/host/shm_ring.h"
#include "server/transport/host/unique_fd.h"

namespace annulus::transport {

// What a link tells the transport it belongs to.
class LinkOwner {
 public:
  // The link cannot go on. May be called in the middle of a link's work: only note it, act later.
  virtual void OnLinkFault(annulusTransportStatus status, int32_t suspect, std::string text) = 0;
  virtual void OnLinkUp(int32_t peer) = 0;
  // About to complete with `status`.
  virtual void OnDone(const Operation& operation, annulusTransportStatus status) = 0;
  // One operation failed and the link goes on.
  virtual void OnNote(int32_t peer, std::string text) = 0;

 protected:
  ~LinkOwner() = default;
};

// The connection to one peer: a UNIX socket with a shared ring beside it, or a TCP socket. It
// matches sends with receives by tag, moves chunks of all matched sends in turn, and hears whether
// the peer lives.
//
// Rendezvous: the receiver says READY(tag), the sender then moves the bytes, as chunks with a
// checksum each. Chunks of one tag travel in order. Small ones and all of TCP's travel on the
// socket; the others through the ring.
//
// Not thread safe: belongs to the progress thread. No call blocks.
class Link {
 public:
  enum class State {
    kIdle,      // nobody there yet
    kDialing,   // TCP connection in progress
    kGreeting,  // HELLO sent, answer awaited
    kUp,
    kDeparted,  // the peer closed in good order
    kDown,      // the transport has failed; only the reason is still sent
  };

  Link(LinkOwner* owner, const Fence& self, int32_t peer);
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  int32_t peer() const { return peer_.source; }
  State state() const { return state_; }
  int fd() const { return fd_.get(); }
  bool shared_memory() const { return ring_ != nullptr; }
  bool wants_write() const { return state_ == State::kDialing || !out_.empty(); }

  // Takes a socket over. kUp answers the caller's HELLO with a WELCOME.
  void Adopt(UniqueFd fd, std::unique_ptr<ShmRing> ring, State state);
  void ShareMemory(std::unique_ptr<ShmRing> ring) { ring_ = std::move(ring); }
  // The connection is there: says HELLO.
  void Greet(const HelloBody& hello, int32_t size, int passed_fd);

  void Post(const OperationPtr& operation);
  void OnReadable();
  // Moves what can be moved. True when there is more to move without hearing from the peer first.
  bool Pump();

  // Once per beat interval of this thread's own clock. Too many in a row without a word from the
  // peer are a fault.
  void Tick(int missed_max, double timeout_seconds);
  // Fails operations whose deadline has passed.
  void Expire(int64_t now_ns);
  // Earliest deadline of an operation; INT64_MAX without any.
  int64_t NextDeadline() const;
  bool busy() const { return !sends_.empty() || !receives_.empty(); }

  // Ends the link's work: every operation completes with `status`, the reason is queued for the
  // peer.
  void Fail(annulusTransportStatus status, int32_t suspect, std::string_view text);
  void SendBye();
  void Hangup() { fd_.Reset(); }
  // True once nothing has to be sent any more and the peer's kernel has all of it.
  bool Flushed();

 private:
  // link.cc
  void Queue(Frame frame, std::span<const uint8_t> payload = {});
  void Broken(annulusTransportStatus status, const std::string& text);
  void Lost(std::string_view how);
  void Finish(const OperationPtr& operation, annulusTransportStatus status);
  bool live() const { return state_ == State::kGreeting || state_ == State::kUp; }

  // link_send.cc
  void OnBrokenPipe();
  void Match(const OperationPtr& operation, uint64_t receiver_total);
  bool SendChunk(const OperationPtr& operation);
  void SendThroughRing(const OperationPtr& operation, size_t length);
  void SendOnSocket(const OperationPtr& operation, size_t length);
  void SettleBorrowed();
  void DropSend(const OperationPtr& operation, annulusTransportStatus status);

  // link_receive.cc
  ssize_t ReadSome();
  void Drain();
  void ConsumeBuffer();
  void Dispatch(const Frame& frame);
  void OnReady(const Frame& frame);
  void OnSlot(const Frame& frame);
  void OnMismatch(const Frame& frame);
  void OnBye();
  void BeginPayload(const Frame& frame);
  void Landed(size_t bytes);
  void FinishPayload();
  bool Accepts(const Frame& frame, OperationPtr* operation);
  void DropReceive(const OperationPtr& operation, annulusTransportStatus status);
  void ForgetPayloadOf(const Operation* operation);

  LinkOwner* const owner_;
  const Fence self_;
  const Fence peer_;
  State state_ = State::kIdle;
  bool broken_ = false;  // a fault was reported; nothing may move any more
  UniqueFd fd_;
  std::unique_ptr<ShmRing> ring_;

  OutQueue out_;
  std::unordered_map<uint64_t, OperationPtr> sends_;  // all that are not complete
  std::unordered_map<uint64_t, uint64_t>
      ready_;                        // announced by the peer, not yet sent: tag -> total
  std::deque<OperationPtr> active_;  // matched, taking turns
  OperationPtr borrowed_;            // its chunk is being written from its own memory
  size_t credits_ = kRingSlots;
  size_t out_slot_ = 0;
  std::vector<iovec> pieces_;  // scratch

  std::unordered_map<uint64_t, OperationPtr> receives_;
  std::unordered_set<uint64_t>
      abandoned_;  // receives that timed out; what still comes for them is dropped
  std::array<uint8_t, 4096> buffer_;
  size_t buffer_begin_ = 0;
  size_t buffer_end_ = 0;
  size_t in_slot_ = 0;
  Frame incoming_;  // whose payload is being read
  size_t payload_left_ = 0;
  std::vector<iovec> targets_;  // where the rest of the payload goes
  size_t target_index_ = 0;
  OperationPtr landing_;  // null when the payload is text or dropped
  Crc32c payload_crc_;
  std::vector<uint8_t> scratch_;  // text, and payloads nobody wants

  bool heard_ = true;
  int missed_ = 0;
};

}  // namespace annulus::transport
