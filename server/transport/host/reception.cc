// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/reception.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "server/transport/host/crc32c.h"
#include "server/transport/host/socket.h"

namespace annulus::transport {
namespace {

constexpr size_t kCallersMax = 64;
constexpr int64_t kGreetingNs = 2'000'000'000;

Verdict Refused(std::string reason) { return {.refusal = std::move(reason)}; }

}  // namespace

Verdict JudgeGreeting(std::span<const uint8_t, kGreetingBytes> bytes,
                      const std::vector<HandleInfo>& handles, int32_t self, bool over_unix) {
  const HandleInfo& own = handles[static_cast<size_t>(self)];
  Frame frame;
  const FrameError error = DecodeFrame(bytes.first<kFrameBytes>(), &frame);
  if (error != FrameError::kNone) return Refused(std::string(FrameErrorName(error)));
  if (frame.type != FrameType::kHello) return Refused("not a greeting");
  const auto payload = bytes.subspan<kFrameBytes, kHelloBytes>();
  if (Crc32cOf(payload.data(), payload.size()) != frame.payload_crc)
    return Refused("damaged greeting");
  if (frame.group != own.group) return Refused("another group");
  if (frame.epoch != own.epoch) {
    Verdict verdict =
        Refused("epoch " + std::to_string(frame.epoch) + ", expected " + std::to_string(own.epoch));
    verdict.stale = true;
    return verdict;
  }
  if (frame.value != static_cast<uint64_t>(own.size)) {
    return Refused("group of " + std::to_string(frame.value) + " ranks, expected " +
                   std::to_string(own.size));
  }
  if (frame.source <= self || frame.source >= own.size) {
    return Refused("rank " + std::to_string(frame.source) + " does not call rank " +
                   std::to_string(self));
  }
  const HandleInfo& caller = handles[static_cast<size_t>(frame.source)];
  if (IsAbsent(caller)) return Refused("rank " + std::to_string(frame.source) + " is no peer");
  const HelloBody body = DecodeHello(payload);
  if (body.caller_nonce != caller.nonce || body.callee_nonce != own.nonce)
    return Refused("wrong secret");
  if (over_unix != (caller.host == own.host)) return Refused("wrong kind of socket for its host");
  const uint32_t slot_bytes = over_unix ? kChunkBytes : 0;
  if (body.slot_bytes != slot_bytes) return Refused("another ring geometry");
  return {.rank = frame.source};
}

bool Reception::Accept(int listener, bool over_unix, int64_t now_ns, std::vector<uint32_t>* added) {
  while (true) {
    UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (!fd) return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM;
    if (over_unix && !SameUser(fd.get())) continue;
    if (callers_.size() >= kCallersMax) callers_.erase(callers_.begin());
    Caller& caller = callers_[next_id_];
    caller.fd = std::move(fd);
    caller.over_unix = over_unix;
    caller.deadline_ns = now_ns + kGreetingNs;
    added->push_back(next_id_++);
  }
}

int Reception::FdOf(uint32_t id) const {
  const auto found = callers_.find(id);
  return found == callers_.end() ? -1 : found->second.fd.get();
}

std::optional<Reception::Caller> Reception::Read(uint32_t id) {
  const auto found = callers_.find(id);
  if (found == callers_.end()) return std::nullopt;
  Caller& caller = found->second;
  while (caller.got < kGreetingBytes) {
    const ssize_t got = ReceiveWithFd(caller.fd.get(), caller.bytes.data() + caller.got,
                                      kGreetingBytes - caller.got, &caller.passed);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return std::nullopt;
    if (got <= 0) {
      callers_.erase(found);
      return std::nullopt;
    }
    caller.got += static_cast<size_t>(got);
  }
  Caller complete = std::move(caller);
  callers_.erase(found);
  return complete;
}

void Reception::Expire(int64_t now_ns) {
  std::erase_if(callers_,
                [now_ns](const auto& entry) { return entry.second.deadline_ns <= now_ns; });
}

void Refuse(int fd, const Fence& self, const std::string& reason) {
  const size_t length = std::min(reason.size(), kTextBytes);
  const FrameHeader header = EncodeFrame({.type = FrameType::kRefuse,
                                          .source = self.source,
                                          .length = static_cast<uint32_t>(length),
                                          .group = self.group,
                                          .epoch = self.epoch,
                                          .payload_crc = Crc32cOf(reason.data(), length)});
  std::string bytes(header.begin(), header.end());
  bytes.append(reason, 0, length);
  SendWithFd(fd, bytes.data(), bytes.size(), -1);
}

}  // namespace annulus::transport
