// SPDX-License-Identifier: Apache-2.0
// libannulus-apart.so: the apart device and its transport in one library, since both must know the
// same memory. Given by path, as compute and as transport plugin.
#include "tests/support/apart/apart_plugin.h"
#include "tests/support/apart/apart_transport.h"

extern "C" __attribute__((visibility("default"))) const annulusComputeV1 annulusCompute_v1 =
    *annulus::testing_support::ApartPlugin();
extern "C" __attribute__((visibility("default"))) const annulusTransportV1 annulusTransport_v1 =
    *annulus::testing_support::ApartTransport();
