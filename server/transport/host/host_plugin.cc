// SPDX-License-Identifier: Apache-2.0
#include "server/transport/host/host_plugin.h"

#include "server/transport/host/host_transport.h"
#include "server/transport/plugin_border.h"

namespace annulus::transport {
namespace {

using Border = PluginBorder<HostTransport, Operation>;

annulusTransportStatus Open(const annulusTransportOptions* options, annulusTransport** transport,
                            annulusTransportHandle* handle) {
  return Border::OpenWith(options, transport, handle, [&](auto* opened) {
    return HostTransport::Open(*options, opened, handle);
  });
}

annulusTransportV1 MakeTable() {
  annulusTransportV1 table = Border::Table("host", ANNULUS_TRANSPORT_CAP_HOST_MEMORY);
  table.open = Open;
  return table;
}

}  // namespace

const annulusTransportV1* HostPlugin() {
  static const annulusTransportV1 table = MakeTable();
  return &table;
}

}  // namespace annulus::transport
