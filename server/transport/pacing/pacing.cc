// SPDX-License-Identifier: Apache-2.0
#include "server/transport/pacing/pacing.h"

#include <cstddef>
#include <mutex>

#include "server/transport/pacing/paced_transport.h"
#include "server/transport/plugin_border.h"

namespace annulus::transport {
namespace {

using Border = PluginBorder<PacedTransport, PacedOperation>;

struct Defaults {
  std::mutex mutex;
  const annulusTransportV1* inner = nullptr;
  PacingModel model;
};

Defaults& TheDefaults() {
  static Defaults defaults;
  return defaults;
}

annulusTransportStatus OpenPaced(const annulusTransportOptions* options,
                                 annulusTransport** transport, annulusTransportHandle* handle) {
  return Border::OpenWith(options, transport, handle, [&](auto* opened) {
    const annulusTransportV1* inner = nullptr;
    PacingModel model;
    {
      std::lock_guard lock(TheDefaults().mutex);
      inner = TheDefaults().inner;
      model = TheDefaults().model;
    }
    return PacedTransport::Open(inner, model, *options, opened, handle);
  });
}

const char* OpenError() {
  std::lock_guard lock(TheDefaults().mutex);
  const annulusTransportV1* const inner = TheDefaults().inner;
  const bool tells =
      inner->struct_size >= offsetof(annulusTransportV1, open_error) + sizeof(inner->open_error) &&
      inner->open_error != nullptr;
  return tells ? inner->open_error() : "";
}

annulusTransportV1 MakeTable() {
  annulusTransportV1 table = Border::Table("pacing", ANNULUS_TRANSPORT_CAP_HOST_MEMORY);
  table.open = OpenPaced;
  table.open_error = OpenError;
  return table;
}

}  // namespace

const annulusTransportV1* PacingTransport(const annulusTransportV1* inner,
                                          const PacingModel& model) {
  static annulusTransportV1 table = MakeTable();
  std::lock_guard lock(TheDefaults().mutex);
  // The words about a transfer lie in host memory, whatever else goes through `inner`.
  table.caps =
      inner->caps & (ANNULUS_TRANSPORT_CAP_HOST_MEMORY | ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY);
  TheDefaults().inner = inner;
  TheDefaults().model = model;
  return &table;
}

}  // namespace annulus::transport
