// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/nccl_plugin.h"

#include "server/transport/nccl/nccl_transport.h"
#include "server/transport/plugin_border.h"

namespace annulus::transport {
namespace {

using nccl::NcclTransport;
using Border = PluginBorder<NcclTransport, nccl::Operation>;

annulusTransportStatus Open(const annulusTransportOptions* options, annulusTransport** transport,
                            annulusTransportHandle* handle) {
  return Border::OpenWith(options, transport, handle, [&](auto* opened) {
    return NcclTransport::Open(*options, opened, handle);
  });
}

annulusTransportStatus RegisterMemory(annulusTransport* transport, void* data, size_t bytes) {
  return Guarded([&] { return Border::TransportOf(transport)->RegisterMemory(data, bytes); });
}

annulusTransportStatus DeregisterMemory(annulusTransport* transport, void* data) {
  return Guarded([&] { return Border::TransportOf(transport)->DeregisterMemory(data); });
}

void GroupBegin(annulusTransport* transport) {
  Guarded([&] {
    Border::TransportOf(transport)->GroupBegin();
    return ANNULUS_TRANSPORT_OK;
  });
}

annulusTransportStatus GroupEnd(annulusTransport* transport) {
  return Guarded([&] { return Border::TransportOf(transport)->GroupEnd(); });
}

annulusTransportV1 MakeTable() {
  annulusTransportV1 table = Border::Table("nccl", ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY);
  table.open = Open;
  table.register_memory = RegisterMemory;
  table.deregister_memory = DeregisterMemory;
  table.group_begin = GroupBegin;
  table.group_end = GroupEnd;
  return table;
}

}  // namespace

const annulusTransportV1* NcclPlugin() {
  static const annulusTransportV1 table = MakeTable();
  return &table;
}

}  // namespace annulus::transport
