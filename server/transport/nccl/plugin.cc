// SPDX-License-Identifier: Apache-2.0
// The entry symbol of libannulus-transport-nccl.so.
#include "server/transport/nccl/nccl_plugin.h"

extern "C" __attribute__((visibility("default"))) const annulusTransportV1 annulusTransport_v1 =
    *annulus::transport::NcclPlugin();
