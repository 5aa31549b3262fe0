// SPDX-License-Identifier: Apache-2.0
// How the transport becomes connected once the host transport is: the higher rank calls the lower
// one's side channel, then each tells each that it is there.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "server/transport/cuipc/cuipc_transport.h"
#include "server/transport/cuipc/tags.h"

namespace annulus::transport::cuipc {
namespace {

constexpr int kPollMs = 1;

// "ranks 0, 1; ranks 2, 3", without those that are no peers.
std::string Groups(const std::vector<HandleInfo>& handles) {
  std::map<uint64_t, std::string> hosts;
  for (const HandleInfo& handle : handles) {
    if (IsAbsent(handle)) continue;
    std::string& ranks = hosts[handle.host];
    ranks += (ranks.empty() ? "" : ", ") + std::to_string(handle.rank);
  }
  std::string text;
  for (const auto& [host, ranks] : hosts) text += (text.empty() ? "ranks " : "; ranks ") + ranks;
  return text;
}

}  // namespace

std::string CuipcTransport::CheckHosts(const annulusTransportHandle* handles,
                                       std::vector<HandleInfo>* infos) const {
  for (int32_t rank = 0; rank < size_; ++rank) {
    const bool no_peer = rank != rank_ && IsNoPeer(handles[rank]);
    const std::optional<HandleInfo> info = no_peer ? HandleInfo() : DecodeHandle(handles[rank]);
    if (!info.has_value()) return "";  // the host transport says what is wrong with it
    infos->push_back(*info);
  }
  const bool together = std::all_of(infos->begin(), infos->end(), [&](const HandleInfo& info) {
    return IsAbsent(info) || info.host == self_.host;
  });
  if (together) return "";
  return "cuipc joins the GPUs of one host, but these are on different ones: " + Groups(*infos) +
         "; use the transport nccl or host";
}

annulusTransportStatus CuipcTransport::Join(int64_t deadline_ns) {
  // These end with the host transport's status when a peer is lost or gives up meanwhile.
  struct Word {
    annulusRequest* request = nullptr;
    uint8_t byte = 0;
  };
  std::vector<Word> heard(peers_.size());
  std::vector<Word> said(peers_.size());
  annulusTransportStatus status = ANNULUS_TRANSPORT_OK;
  for (int32_t rank = 0; rank < size_ && status == ANNULUS_TRANSPORT_OK; ++rank) {
    Word& word = heard[static_cast<size_t>(rank)];
    const annulusSegment segment{&word.byte, 1};
    if (IsPeer(rank)) {
      status = host_->irecv(control_, rank, kJoinedTag, &segment, 1, deadline_ns, &word.request);
    }
  }
  std::string why;
  bool greeted = false;
  if (!DialLower(&why)) status = ANNULUS_TRANSPORT_REFUSED;
  while (status == ANNULUS_TRANSPORT_OK) {
    if (!AdmitCallers(&why)) status = ANNULUS_TRANSPORT_RESOURCE;
    const bool all = AllSides();
    for (int32_t rank = 0; all && !greeted && rank < size_; ++rank) {
      Word& word = said[static_cast<size_t>(rank)];
      const annulusSegment segment{&word.byte, 1};
      if (!IsPeer(rank) || status != ANNULUS_TRANSPORT_OK) continue;
      status = host_->isend(control_, rank, kJoinedTag, &segment, 1, deadline_ns, &word.request);
    }
    greeted = greeted || all;
    bool waiting = !greeted;
    for (auto* words : {&heard, &said}) {
      for (Word& word : *words) {
        annulusTransportStatus end = ANNULUS_TRANSPORT_OK;
        if (word.request == nullptr) continue;
        if (!Take(&word.request, &end)) waiting = true;
        if (status == ANNULUS_TRANSPORT_OK) status = end;
      }
    }
    if (!waiting) break;
    pollfd events[] = {{listener_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    ::poll(events, 2, kPollMs);
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof(count));
  }
  if (status != ANNULUS_TRANSPORT_OK) {
    if (status == ANNULUS_TRANSPORT_DEADLINE) why = MissingSides();
    if (!why.empty()) SetError(-1, why);
    host_->abort(control_, why.empty() ? "cannot connect" : why.c_str());
    for (auto* words : {&heard, &said}) {  // their memory ends here
      for (Word& word : *words) {
        if (word.request == nullptr) continue;
        host_->wait(&word.request, 1, nullptr);
        host_->release(word.request);
      }
    }
  }
  listener_.Reset();
  callers_.clear();
  return status;
}

bool CuipcTransport::AllSides() const {
  for (int32_t rank = 0; rank < size_; ++rank) {
    if (IsPeer(rank) && peers_[static_cast<size_t>(rank)] == nullptr) return false;
  }
  return true;
}

std::string CuipcTransport::MissingSides() const {
  std::string missing;
  for (int32_t rank = 0; rank < size_; ++rank) {
    if (!IsPeer(rank) || peers_[static_cast<size_t>(rank)] != nullptr) continue;
    missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
  }
  if (missing.empty()) return "";
  return "connected, but without the side channel of cuipc by the deadline: " + missing +
         "; do all ranks use this transport?";
}

bool CuipcTransport::DialLower(std::string* why) {
  for (int32_t rank = 0; rank < rank_; ++rank) {
    if (!IsPeer(rank)) continue;
    std::string reason;
    std::unique_ptr<SideChannel> side =
        SideChannel::Dial(self_, handles_[static_cast<size_t>(rank)], &reason);
    if (side == nullptr) {
      *why = "rank " + std::to_string(rank) + " does not take the side channel of cuipc (" +
             reason + "): do all ranks use this transport?";
      return false;
    }
    peers_[static_cast<size_t>(rank)] = std::make_unique<Peer>(device_.get(), std::move(side));
  }
  return true;
}

bool CuipcTransport::AdmitCallers(std::string* why) {
  while (true) {
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) break;
      *why = "no descriptor left to accept a peer";
      return false;
    }
    callers_.push_back({std::move(fd)});
  }
  for (SideChannel::Caller& caller : callers_) {
    int32_t rank = -1;
    std::string refusal;
    std::unique_ptr<SideChannel> side =
        SideChannel::Admit(&caller, self_, handles_, &rank, &refusal);
    if (side != nullptr && peer(rank) == nullptr) {
      peers_[static_cast<size_t>(rank)] = std::make_unique<Peer>(device_.get(), std::move(side));
    } else if (!refusal.empty()) {
      caller.fd.Reset();
    }
  }
  std::erase_if(callers_, [](const SideChannel::Caller& caller) { return !caller.fd; });
  return true;
}

}  // namespace annulus::transport::cuipc
