// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/transport/transport_plugin.h"

namespace annulus::transport::cuipc {

// The table of the cuipc transport, over the copy device that is linked.
const annulusTransportV1* CuipcPlugin();

}  // namespace annulus::transport::cuipc
