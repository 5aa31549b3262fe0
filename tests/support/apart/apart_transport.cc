// SPDX-License-Identifier: Apache-2.0
#include "tests/support/apart/apart_transport.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "server/transport/host/host_plugin.h"
#include "tests/support/apart/apart_memory.h"

namespace annulus::testing_support {
namespace {

using transport::HostPlugin;

thread_local bool in_group = false;

void Hold(bool kept, const char* rule) {
  if (kept) return;
  std::fprintf(stderr, "apart transport: %s\n", rule);
  std::abort();
}

annulusTransportStatus Open(const annulusTransportOptions* options, annulusTransport** transport,
                            annulusTransportHandle* handle) {
  Hold(options->device_ordinal >= 0, "opened without a device");
  return HostPlugin()->open(options, transport, handle);
}

std::vector<annulusSegment> Aliases(const annulusSegment* segments, size_t count) {
  std::vector<annulusSegment> aliases(segments, segments + count);
  for (annulusSegment& segment : aliases) {
    size_t rest = 0;
    segment.data = ApartMemory::Get().Alias(segment.data, &rest);
    Hold(segment.data != nullptr && segment.bytes <= rest, "a segment outside of device memory");
  }
  return aliases;
}

annulusTransportStatus Isend(annulusTransport* transport, int32_t peer, uint64_t tag,
                             const annulusSegment* segments, size_t count, int64_t deadline_ns,
                             annulusRequest** request) {
  Hold(in_group, "a send outside of a group");
  const auto aliases = Aliases(segments, count);
  return HostPlugin()->isend(transport, peer, tag, aliases.data(), count, deadline_ns, request);
}

annulusTransportStatus Irecv(annulusTransport* transport, int32_t peer, uint64_t tag,
                             const annulusSegment* segments, size_t count, int64_t deadline_ns,
                             annulusRequest** request) {
  Hold(in_group, "a receive outside of a group");
  const auto aliases = Aliases(segments, count);
  return HostPlugin()->irecv(transport, peer, tag, aliases.data(), count, deadline_ns, request);
}

annulusTransportStatus Wait(annulusRequest* const* requests, size_t count,
                            annulusCompletion* completions) {
  Hold(!in_group, "a wait inside of a group");
  return HostPlugin()->wait(requests, count, completions);
}

void GroupBegin(annulusTransport*) {
  Hold(!in_group, "a group inside of a group");
  in_group = true;
}

annulusTransportStatus GroupEnd(annulusTransport*) {
  Hold(in_group, "the end of no group");
  in_group = false;
  return ANNULUS_TRANSPORT_OK;
}

}  // namespace

const annulusTransportV1* ApartTransport() {
  static const annulusTransportV1 table = [] {
    annulusTransportV1 made = *HostPlugin();
    made.struct_size = sizeof(made);
    made.abi_minor = 2;
    made.name = "apart";
    made.caps = ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY;
    made.open = Open;
    made.isend = Isend;
    made.irecv = Irecv;
    made.wait = Wait;
    made.group_begin = GroupBegin;
    made.group_end = GroupEnd;
    return made;
  }();
  return &table;
}

}  // namespace annulus::testing_support
