// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// A transport that moves nothing: every operation completes at once with OK, the bytes it named and
// equal stamps. Receivers read whatever their memory held. For one experiment only: the time of a
// run with its transfers replaced by no-ops. Never null.
const annulusTransportV1* NullTransport();

}  // namespace annulus::transport
