// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "server/transport/transport_plugin.h"

namespace annulus::worker::testing {

// A transport that has its memory registered, as NCCL's does, over another one. It notes what the
// ABI forbids: memory registered twice or not at all, transfers of memory that is not registered,
// and anything said to a transport after its close. One for the whole process; thread safe.
class Registering {
 public:
  // The table, over `base` (null: the host transport), with every count at zero.
  static const annulusTransportV1* Over(const annulusTransportV1* base);
  // The next registration fails.
  static void RefuseNext();

  // Registrations so far, and those that were neither taken back nor closed.
  static int registered();
  static int held();
  // What was done wrong, a line each.
  static std::string faults();
};

}  // namespace annulus::worker::testing
