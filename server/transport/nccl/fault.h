// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "server/transport/transport_plugin.h"

namespace annulus::transport::nccl {

// What ended a transport: the status of its operations, the rank to ask (-1: none), and why.
struct Fault {
  annulusTransportStatus status = ANNULUS_TRANSPORT_ABORTED;
  int32_t suspect = -1;
  std::string text;
};

// The control transport's abort carries words alone, and every rank then suspects whoever called
// it. So the words begin with status and suspect, "nccl(3,2) ...", and are taken apart on the other
// side. Without that beginning the fault is the control transport's own.
std::string EncodeFault(const Fault& fault);

// `seen` is what the control transport reports of itself; what it says of a fault that was encoded
// is replaced.
Fault DecodeFault(const Fault& seen);

}  // namespace annulus::transport::nccl
