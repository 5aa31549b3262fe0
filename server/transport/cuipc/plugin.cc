// SPDX-License-Identifier: Apache-2.0
// The entry symbol of libannulus-transport-cuipc.so.
#include "server/transport/cuipc/cuipc_plugin.h"

extern "C" __attribute__((visibility("default"))) const annulusTransportV1 annulusTransport_v1 =
    *annulus::transport::cuipc::CuipcPlugin();
