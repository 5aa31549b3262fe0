// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// The NCCL transport as a plugin table: device memory of GPUs, over two communicators. Never null;
// lives as long as the process. NCCL and CUDA are looked for at `open`; what is missing is told by
// `connect`. Self-sends are INVALID_ARGUMENT, and so are peers that share neither the window nor
// the index. After a rank has closed, those that shared a communicator with it move nothing more
// through it.
const annulusTransportV1* NcclPlugin();

}  // namespace annulus::transport
