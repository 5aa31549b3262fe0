// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace annulus {

// Settings that both ends of every gRPC channel of the project share, as plain constants so that
// layers without gRPC may read them. A peer that is stopped or cut off answers no keepalive ping:
// it is noticed after about kKeepaliveTimeMs + kKeepaliveTimeoutMs, with or without a call in
// flight.
inline constexpr int kKeepaliveTimeMs = 500;
inline constexpr int kKeepaliveTimeoutMs = 500;
// A server answers pings that come faster than this with GOAWAY (too_many_pings), so it must allow
// more than kKeepaliveTimeMs asks for.
inline constexpr int kMinPingIntervalMs = 100;
// How soon a client tries again after a failed connect, at first and at most.
inline constexpr int kReconnectInitialMs = 100;
inline constexpr int kReconnectMaxMs = 500;
// How long one attempt to connect may take.
inline constexpr int kConnectTimeoutMs = 1000;
// Largest message either side accepts. Tensors travel in frames of at most 4 MiB, plans by digest.
inline constexpr int kMaxMessageBytes = 64 << 20;
// Error text and details must fit beside each other into 8 KiB of HTTP/2 trailers.
inline constexpr int kMaxErrorMessageBytes = 1500;
inline constexpr int kMaxErrorMetadataBytes = 2000;

}  // namespace annulus
