// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/sequencer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "server/transport/nccl/pieces.h"

namespace annulus::transport::nccl {
namespace {

// Sum of the lengths; nothing real is as long as the largest number.
uint64_t TotalOf(const std::vector<uint64_t>& lengths) {
  uint64_t total = 0;
  for (const uint64_t length : lengths) {
    if (length > std::numeric_limits<uint64_t>::max() - total) {
      return std::numeric_limits<uint64_t>::max();
    }
    total += length;
  }
  return total;
}

}  // namespace

Sequencer::Key Sequencer::KeyOf(const Posted& posted, bool is_send) {
  const bool sends = posted.note.is_send;
  return {sends ? posted.member : posted.note.peer, sends ? posted.note.peer : posted.member,
          posted.note.tag, is_send};
}

bool Sequencer::Add(int32_t member, const std::vector<OperationNote>& batch, int32_t members,
                    std::vector<Decision>* decisions) {
  auto owned = std::make_unique<Cluster>();
  Cluster* const cluster = owned.get();
  clusters_.emplace(cluster, std::move(owned));
  std::vector<std::pair<uint64_t, Posted*>> added;
  for (const OperationNote& note : batch) {
    if (note.peer >= members || note.peer == member) return false;
    auto posted = std::make_unique<Posted>();
    *posted = {member, note, TotalOf(note.lengths), nullptr, cluster};
    Posted* const plain = posted.get();
    if (!posted_.emplace(Place{member, note.id}, std::move(posted)).second) return false;
    if (!unmatched_.emplace(KeyOf(*plain, note.is_send), plain).second) return false;
    cluster->operations.push_back(plain);
    ++cluster->unmatched;
    added.emplace_back(note.id, plain);
  }
  // The whole batch hangs together before anything of it may go.
  Cluster* grown = cluster;
  for (const auto& [id, posted] : added) {
    Match(posted, decisions);
    if (posted_.contains(Place{member, id})) grown = posted->cluster;
  }
  if (clusters_.contains(grown)) GoIfComplete(grown, decisions);
  return true;
}

void Sequencer::Match(Posted* posted, std::vector<Decision>* decisions) {
  const auto found = unmatched_.find(KeyOf(*posted, !posted->note.is_send));
  if (found == unmatched_.end()) return;
  Posted* const other = found->second;
  if (other->total != posted->total) return Refuse(posted, other, decisions);
  unmatched_.erase(found);
  unmatched_.erase(KeyOf(*posted, posted->note.is_send));
  --posted->cluster->unmatched;
  --other->cluster->unmatched;
  posted->counterpart = other;
  other->counterpart = posted;
  Join(posted->cluster, other->cluster);
}

void Sequencer::Refuse(Posted* posted, Posted* other, std::vector<Decision>* decisions) {
  for (const auto& [one, its_other] : {std::pair{posted, other}, std::pair{other, posted}}) {
    OperationNote named;
    named.id = one->note.id;
    decisions->push_back({one->member,
                          {.type = MessageType::kMismatch,
                           .number = its_other->total,
                           .text = {},
                           .operations = {std::move(named)}}});
  }
  Cluster* const others = other->cluster;
  Remove(other);
  Remove(posted);
  if (clusters_.contains(others)) GoIfComplete(others, decisions);
}

Sequencer::Cluster* Sequencer::Join(Cluster* a, Cluster* b) {
  if (a == b) return a;
  if (a->operations.size() < b->operations.size()) std::swap(a, b);
  for (Posted* const posted : b->operations) posted->cluster = a;
  a->operations.insert(a->operations.end(), b->operations.begin(), b->operations.end());
  a->unmatched += b->unmatched;
  clusters_.erase(b);
  return a;
}

void Sequencer::Withdraw(int32_t member, uint64_t id, std::vector<Decision>* decisions) {
  const auto found = posted_.find(Place{member, id});
  if (found == posted_.end()) return;
  Posted* const posted = found->second.get();
  Cluster* const cluster = posted->cluster;
  if (Posted* const left = posted->counterpart; left != nullptr) {
    left->counterpart = nullptr;
    posted->counterpart = nullptr;
    unmatched_.emplace(KeyOf(*left, left->note.is_send), left);
    unmatched_.emplace(KeyOf(*posted, posted->note.is_send), posted);
    cluster->unmatched += 2;
  }
  Remove(posted);
  decisions->push_back({member, {.type = MessageType::kWithdrawn, .number = id}});
  GoIfComplete(cluster, decisions);
}

// Of an operation without a counterpart.
void Sequencer::Remove(Posted* posted) {
  unmatched_.erase(KeyOf(*posted, posted->note.is_send));
  --posted->cluster->unmatched;
  std::erase(posted->cluster->operations, posted);
  posted_.erase(Place{posted->member, posted->note.id});
}

void Sequencer::GoIfComplete(Cluster* cluster, std::vector<Decision>* decisions) {
  if (cluster->unmatched > 0) return;
  std::vector<Posted*> sends;
  std::map<int32_t, uint64_t> load;
  for (Posted* const posted : cluster->operations) {
    if (!posted->note.is_send) continue;
    const uint64_t heaviest = std::max(++load[posted->member], ++load[posted->counterpart->member]);
    if (heaviest > kOperationsOfGo) {
      Go(sends, decisions);
      sends.clear();
      load.clear();
      load[posted->member] = load[posted->counterpart->member] = 1;
    }
    sends.push_back(posted);
  }
  if (!sends.empty()) Go(sends, decisions);
  for (const Posted* const posted : cluster->operations) {
    posted_.erase(Place{posted->member, posted->note.id});
  }
  clusters_.erase(cluster);
}

void Sequencer::Go(const std::vector<Posted*>& sends, std::vector<Decision>* decisions) {
  std::map<int32_t, Message> messages;
  size_t heaviest = 1;
  for (Posted* const send : sends) {
    const std::vector<uint64_t> pieces =
        CommonPieces(send->note.lengths, send->counterpart->note.lengths);
    for (const Posted* const side : {send, send->counterpart}) {
      Message& message = messages[side->member];
      message.type = MessageType::kGo;
      message.operations.push_back(
          {side->note.id, side->note.is_send, side->note.peer, side->note.tag, pieces});
      heaviest = std::max(heaviest, message.operations.size());
    }
  }
  for (auto& [member, message] : messages) {
    message.number = std::max<uint64_t>(1, kCallsOfGroup / heaviest);
    decisions->push_back({member, std::move(message)});
  }
}

}  // namespace annulus::transport::nccl
