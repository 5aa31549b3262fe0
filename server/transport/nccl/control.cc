// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/control.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

namespace annulus::transport::nccl {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr size_t kFrameBytes = 2048;  // most messages are one frame

}  // namespace

// The first of a message begins with its length; the last is filled up.
struct Control::Frame {
  std::array<char, kFrameBytes> bytes{};
};

struct Control::Edge {
  int32_t peer = 0;

  std::deque<Frame> to_send;  // the first is on its way while `out` is there
  annulusRequest* out = nullptr;
  uint64_t sent = 0;

  bool listening = false;
  Frame incoming;
  annulusRequest* in = nullptr;
  uint64_t received = 0;
  std::string assembled;
};

Control::Control(const annulusTransportV1* table, annulusTransport* transport,
                 void (*notify)(void*), void* context)
    : table_(table), transport_(transport) {
  table_->set_notify(transport_, notify, context);
}

Control::~Control() {
  table_->close(transport_);
  for (const auto& [peer, edge] : edges_) {
    if (edge->in != nullptr) table_->release(edge->in);
    if (edge->out != nullptr) table_->release(edge->out);
  }
}

annulusTransportStatus Control::Connect(const annulusTransportHandle* handles,
                                        int64_t deadline_ns) {
  return table_->connect(transport_, handles, deadline_ns);
}

void Control::Abort(const Fault& fault) { table_->abort(transport_, EncodeFault(fault).c_str()); }

Fault Control::LastFault(annulusTransportStatus status) const {
  std::array<char, 1024> text{};
  Fault fault{status, -1, ""};
  table_->last_error(transport_, text.data(), text.size(), &fault.suspect);
  fault.text = text.data();
  return DecodeFault(fault);
}

void Control::Stats(annulusTransportStats* stats) const { table_->stats(transport_, stats); }

Control::Edge* Control::EdgeTo(int32_t peer) {
  std::unique_ptr<Edge>& edge = edges_[peer];
  if (edge == nullptr) {
    edge = std::make_unique<Edge>();
    edge->peer = peer;
  }
  return edge.get();
}

void Control::Listen(int32_t peer) {
  Edge* const edge = EdgeTo(peer);
  edge->listening = true;
  Receive(edge);
}

void Control::Receive(Edge* edge) {
  const annulusSegment segment{edge->incoming.bytes.data(), kFrameBytes};
  const annulusTransportStatus status =
      table_->irecv(transport_, edge->peer, edge->received, &segment, 1, kNever, &edge->in);
  if (status != ANNULUS_TRANSPORT_OK && !fault_.has_value()) fault_ = LastFault(status);
}

void Control::Send(int32_t peer, const Message& message) {
  const std::string body = EncodeMessage(message);
  std::string bytes(sizeof(uint32_t), '\0');
  const auto length = static_cast<uint32_t>(body.size());
  std::memcpy(bytes.data(), &length, sizeof(length));
  bytes += body;
  Edge* const edge = EdgeTo(peer);
  for (size_t at = 0; at < bytes.size(); at += kFrameBytes) {
    Frame& frame = edge->to_send.emplace_back();
    std::memcpy(frame.bytes.data(), bytes.data() + at, std::min(kFrameBytes, bytes.size() - at));
  }
  Push(edge);
}

void Control::Push(Edge* edge) {
  if (edge->out != nullptr || edge->to_send.empty() || fault_.has_value()) return;
  const annulusSegment segment{edge->to_send.front().bytes.data(), kFrameBytes};
  const annulusTransportStatus status =
      table_->isend(transport_, edge->peer, edge->sent++, &segment, 1, kNever, &edge->out);
  if (status != ANNULUS_TRANSPORT_OK) fault_ = LastFault(status);
}

bool Control::Completed(annulusRequest** request) {
  int32_t done = 0;
  annulusCompletion end{};
  if (*request == nullptr) return false;
  table_->test(*request, &done, &end);
  if (done == 0) return false;
  table_->release(*request);
  *request = nullptr;
  if (end.status == ANNULUS_TRANSPORT_OK) return true;
  if (!fault_.has_value()) fault_ = LastFault(end.status);
  return false;
}

std::vector<Control::Received> Control::Poll() {
  std::vector<Received> received;
  for (const auto& [peer, edge] : edges_) {
    while (!fault_.has_value() && Completed(&edge->out)) {
      edge->to_send.pop_front();
      Push(edge.get());
    }
    while (!fault_.has_value() && Completed(&edge->in)) {
      ++edge->received;
      if (!TakeFrame(edge.get(), &received)) {
        fault_ = Fault{ANNULUS_TRANSPORT_CORRUPTED, peer,
                       "peer " + std::to_string(peer) + " sent what is no message"};
      } else if (edge->listening) {
        Receive(edge.get());
      }
    }
  }
  return received;
}

bool Control::TakeFrame(Edge* edge, std::vector<Received>* received) {
  edge->assembled.append(edge->incoming.bytes.data(), kFrameBytes);
  uint32_t length = 0;
  std::memcpy(&length, edge->assembled.data(), sizeof(length));
  if (length > kMessageBytesMax) return false;
  if (edge->assembled.size() < sizeof(length) + length) return true;
  std::optional<Message> message =
      DecodeMessage(std::string_view(edge->assembled).substr(sizeof(length), length));
  edge->assembled.clear();
  if (!message.has_value()) return false;
  edge->listening = !LastWord(message->type);
  received->push_back({edge->peer, *std::move(message)});
  return true;
}

bool Control::Flushed() const {
  return std::all_of(edges_.begin(), edges_.end(),
                     [](const auto& each) { return each.second->to_send.empty(); });
}

}  // namespace annulus::transport::nccl
