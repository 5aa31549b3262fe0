// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "annulus/types.h"

namespace annulus::cli {

// Numbers with units as people type and read them. Parsers give INVALID_ARGUMENT with what was
// expected and what was got.

// "2GB/s", "200MB/s", "1.5GiB/s": bytes per second, above 0.
absl::StatusOr<double> ParseRate(const std::string& text);
// "20us", "1.5ms", "30s", "2m", or a plain number of seconds; 0 or more.
absl::StatusOr<double> ParseSeconds(const std::string& text);
// "512MiB", "4GiB", "1e9", a plain number of bytes; 1 or more.
absl::StatusOr<uint64_t> ParseBytes(const std::string& text);

struct EmulatedLinks {
  client::LinkModel inner;
  client::LinkModel outer;
};
// "inner=2GB/s,outer=200MB/s,latency=20us"; each part once, latency is of both links.
absl::StatusOr<EmulatedLinks> ParseEmulatedLinks(const std::string& text);

std::string FormatBytes(double bytes);      // "1.50 GiB"
std::string FormatSeconds(double seconds);  // "12.3 ms"

}  // namespace annulus::cli
