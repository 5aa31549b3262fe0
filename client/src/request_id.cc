// SPDX-License-Identifier: Apache-2.0
#include "client/src/request_id.h"

#include <random>

#include "absl/strings/str_format.h"

namespace annulus::client {
namespace {

uint64_t Fnv1a(const std::string& text) {
  uint64_t hash = 14695981039346656037u;
  for (const unsigned char c : text) hash = (hash ^ c) * 1099511628211u;
  return hash;
}

}  // namespace

uint64_t RandomBits() {
  thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

std::string NewRequestId() {
  const uint64_t high = (RandomBits() & ~uint64_t{0xf000}) | 0x4000;
  const uint64_t low = (RandomBits() >> 2) | (uint64_t{1} << 63);
  return absl::StrFormat("%08x-%04x-%04x-%04x-%012x", high >> 32, (high >> 16) & 0xffff,
                         high & 0xffff, low >> 48, low & 0xffffffffffffu);
}

std::string CollectiveRequestId(const std::string& group, const std::string& job_id, uint64_t epoch,
                                uint64_t number) {
  return absl::StrFormat("c%016x.%x.%d", Fnv1a(group + "\n" + job_id), epoch, number);
}

}  // namespace annulus::client
