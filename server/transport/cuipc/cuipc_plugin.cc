// SPDX-License-Identifier: Apache-2.0
#include "server/transport/cuipc/cuipc_plugin.h"

#include <string>

#include "server/transport/cuipc/cuipc_transport.h"
#include "server/transport/plugin_border.h"

namespace annulus::transport::cuipc {
namespace {

using Border = PluginBorder<CuipcTransport, Operation>;

std::string& OpenFailure() {
  thread_local std::string text;
  return text;
}

annulusTransportStatus Open(const annulusTransportOptions* options, annulusTransport** transport,
                            annulusTransportHandle* handle) {
  return Border::OpenWith(options, transport, handle, [&](auto* opened) {
    OpenFailure().clear();
    return CuipcTransport::Open(*options, opened, handle, &OpenFailure());
  });
}

// Memory is shared with a peer when it is first received into, so there is no register_memory; and
// operations start by themselves, in any order: there are no groups.
annulusTransportStatus Deregister(annulusTransport* transport, void* data) {
  return Guarded([&] { return Border::TransportOf(transport)->Deregister(data); });
}

const char* OpenError() { return OpenFailure().c_str(); }

annulusTransportV1 MakeTable() {
  annulusTransportV1 table = Border::Table(
      "cuipc", ANNULUS_TRANSPORT_CAP_HOST_MEMORY | ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY);
  table.open = Open;
  table.deregister_memory = Deregister;
  table.open_error = OpenError;
  return table;
}

}  // namespace

const annulusTransportV1* CuipcPlugin() {
  static const annulusTransportV1 table = MakeTable();
  return &table;
}

}  // namespace annulus::transport::cuipc
