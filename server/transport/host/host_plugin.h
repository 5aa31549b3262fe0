// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// The host transport as a plugin table: shared memory between ranks of one host, TCP between
// others. Needs no hardware. Never null; lives as long as the process. Ranks share memory when
// their host_id, kernel boot and network namespace are the same. Self-sends are INVALID_ARGUMENT.
const annulusTransportV1* HostPlugin();

}  // namespace annulus::transport
