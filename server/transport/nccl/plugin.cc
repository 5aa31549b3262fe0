// SPDX-License-Identifier: Apache-2.0
// The entry symbols of libannulus-transport-nccl.so: one for us, one for NCCL.
#include "server/transport/nccl/nccl_plugin.h"
#include "server/transport/nccl/profiler.h"

extern "C" __attribute__((visibility("default"))) const annulusTransportV1 annulusTransport_v1 =
    *annulus::transport::NcclPlugin();

extern "C" __attribute__((visibility("default")))
const annulus::transport::nccl::ProfilerV5 ncclProfiler_v5 =
    *annulus::transport::nccl::NcclProfiler();
