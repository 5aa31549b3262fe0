// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Tags of what is said about a transfer, in the direction against its bytes: scattered over all 64
// bits (the finalizer of splitmix64), where they meet no tag in use but by a chance of 2^-64 each,
// and then with an error. The answer travels with the bytes and has the transfer's own tag, which
// is used once in that direction.
namespace annulus::transport::cuipc {

inline uint64_t Scatter(uint64_t tag) {
  tag = (tag ^ (tag >> 30)) * 0xBF58476D1CE4E5B9ull;
  tag = (tag ^ (tag >> 27)) * 0x94D049BB133111EBull;
  return tag ^ (tag >> 31);
}

inline uint64_t OfferTag(uint64_t tag) { return Scatter(tag + 0xA24BAED4963EE407ull); }
inline uint64_t PiecesTag(uint64_t tag) { return Scatter(tag + 0x9FB21C651E98DF25ull); }
// Each rank tells each other that it has joined, both ways.
inline constexpr uint64_t kJoinedTag = 0xD6E8FEB86659FD93ull;

}  // namespace annulus::transport::cuipc
