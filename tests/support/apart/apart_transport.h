// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/transport/transport_plugin.h"

namespace annulus::testing_support {

// The host transport between the memories of apart devices (apart_plugin.h): takes their addresses
// and no others. Holds its callers to the groups of the ABI: the process ends when something is
// posted outside of one, or waited for inside.
const annulusTransportV1* ApartTransport();

}  // namespace annulus::testing_support
