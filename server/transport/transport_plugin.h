/* SPDX-License-Identifier: Apache-2.0 */
/* The transport plugin ABI: moves bytes between the ranks of one group at one epoch.
 *
 * A plugin is a shared library libannulus-transport-<name>.so that exports one struct,
 * `annulusTransport_v1`, of this type. It knows nothing of attention. No C++ type and no exception
 * crosses this line. Fields are only ever added at the end: check `struct_size`.
 *
 * Life: open (listens, gives a handle of at most 128 bytes) -> the coordinator relays the handles
 * of all ranks -> connect (blocking, by a deadline) -> isend / irecv / wait ... -> close. One
 * transport belongs to one (group, epoch); a new epoch opens a new one with fresh handles, so that
 * a stale peer cannot even connect.
 *
 * Messages are matched by (peer, tag); a tag is used once per direction and pair of ranks. A send
 * starts to move only when the peer has posted the receive (rendezvous), so nothing is buffered
 * for a receiver that is not there and one request never blocks another. A transfer moves the bytes
 * of the sender's segments, in order, into the receiver's; both sides must name the same total. The
 * CRC32C of every chunk is computed on the producer's buffer and checked by the consumer.
 *
 * Memory of a posted operation belongs to the transport until its completion is reported or
 * `close` has returned. A missed deadline and a mismatch fail their operation alone; its tag stays
 * used up. A lost peer, damage and `abort` end the transport: every operation of every rank then
 * completes with that status (or its own earlier one) within a second, and last_error names the
 * suspect. Requests may be tested and released after `close`; all of them are complete by then.
 *
 * Thread safety: every function may be called from any thread. isend, irecv, test and abort do not
 * block.
 */
#ifndef ANNULUS_SERVER_TRANSPORT_TRANSPORT_PLUGIN_H_
#define ANNULUS_SERVER_TRANSPORT_TRANSPORT_PLUGIN_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ANNULUS_TRANSPORT_V1_SYMBOL "annulusTransport_v1"
#define ANNULUS_TRANSPORT_HANDLE_BYTES 128

typedef enum annulusTransportStatus {
  ANNULUS_TRANSPORT_OK = 0,
  ANNULUS_TRANSPORT_PENDING = 1,
  ANNULUS_TRANSPORT_INVALID_ARGUMENT = 2,
  ANNULUS_TRANSPORT_DEADLINE = 3,  /* not complete by its deadline */
  ANNULUS_TRANSPORT_PEER_LOST = 4, /* the peer's process or link is gone or silent */
  ANNULUS_TRANSPORT_ABORTED = 5,   /* abort was called here or by a peer */
  ANNULUS_TRANSPORT_CORRUPTED = 6, /* a checksum did not match, or a frame was malformed */
  ANNULUS_TRANSPORT_MISMATCH = 7,  /* the two sides named different byte counts */
  ANNULUS_TRANSPORT_RESOURCE = 8,  /* no memory, descriptors or queue entries left */
  ANNULUS_TRANSPORT_REFUSED = 9,   /* a peer refused to connect: other group, epoch or secret */
} annulusTransportStatus;

typedef enum annulusLevel {
  ANNULUS_LEVEL_INNER = 0, /* inside a node */
  ANNULUS_LEVEL_OUTER = 1, /* between nodes */
} annulusLevel;

typedef struct annulusTransportHandle {
  uint8_t bytes[ANNULUS_TRANSPORT_HANDLE_BYTES];
} annulusTransportHandle;

/* How a wire of the given level is emulated (--emulate-link). 0 bytes per second: not emulated. */
typedef struct annulusLinkModel {
  double bytes_per_second;
  double latency_seconds;
} annulusLinkModel;

typedef struct annulusTransportOptions {
  size_t struct_size;
  const char* group; /* name of the group, <= 128 characters */
  uint64_t epoch;
  int32_t rank;
  int32_t size;             /* 1..4096 */
  const char* host_id;      /* ranks with the same host_id share memory; others use TCP */
  const char* bind_address; /* numeric address that peers on other hosts reach, e.g. "127.0.0.1" */
  double peer_timeout_seconds; /* a peer silent this long is lost; default 1.0 when 0 */
  /* Since abi_minor 2. */
  int32_t window_size;    /* ranks of an inner ring, a divisor of size; 0: all. Rank W * w + i */
  int32_t device_ordinal; /* of this rank's device memory; -1: host memory alone */
} annulusTransportOptions;

typedef struct annulusSegment {
  void* data; /* only read on the sending side */
  size_t bytes;
} annulusSegment;

typedef struct annulusCompletion {
  annulusTransportStatus status;
  int32_t peer;
  int64_t
      start_ns; /* CLOCK_MONOTONIC; when bytes began to move, not when the operation was posted */
  int64_t end_ns;
  uint64_t bytes;
} annulusCompletion;

/* Counters since open. Fields are only ever added at the end. */
typedef struct annulusTransportStats {
  size_t struct_size;      /* set by the caller */
  uint64_t sent_bytes;     /* of completed sends */
  uint64_t received_bytes; /* of completed receives */
  uint64_t
      refused_connections; /* callers of another group or epoch, without the secret, or malformed */
  uint64_t stale_epoch;    /* those of them that named another epoch */
  uint64_t corrupted;      /* checksum mismatches and malformed frames */
} annulusTransportStats;

typedef struct annulusTransport annulusTransport;
typedef struct annulusRequest annulusRequest;

enum {
  ANNULUS_TRANSPORT_CAP_HOST_MEMORY = 1u << 0,
  ANNULUS_TRANSPORT_CAP_DEVICE_MEMORY = 1u << 1,
  ANNULUS_TRANSPORT_CAP_STREAM_ORDERED = 1u << 2,
};

typedef struct annulusTransportV1 {
  size_t struct_size;
  uint32_t abi_minor;
  const char* name;
  uint64_t caps;

  annulusTransportStatus (*open)(const annulusTransportOptions* options,
                                 annulusTransport** transport, annulusTransportHandle* handle);
  /* handles[size], in rank order. Blocks until every peer of this rank is connected, or the
   * CLOCK_MONOTONIC deadline. Verifies group and epoch with each peer. Since abi_minor 2 a handle
   * of zeros says that this rank is no peer of that one, nor that one of it: nothing is connected
   * between them, and posting to it is INVALID_ARGUMENT. So a group may have a transport inside
   * nodes and another between them. */
  annulusTransportStatus (*connect)(annulusTransport* transport,
                                    const annulusTransportHandle* handles, int64_t deadline_ns);
  /* Optional (either may be NULL): pins or registers memory for faster transfers, before connect or
   * after. A plugin that has register_memory is given transfers of registered memory alone, by all
   * ranks. deregister_memory, of the same `data`, comes before the memory is freed, also where
   * there is no register_memory: nothing of the transport's, nor of its peers', reaches it any
   * more. What is still registered at `close` goes with it. Both may block for a second. */
  annulusTransportStatus (*register_memory)(annulusTransport* transport, void* data, size_t bytes);
  annulusTransportStatus (*deregister_memory)(annulusTransport* transport, void* data);

  annulusTransportStatus (*isend)(annulusTransport* transport, int32_t peer, uint64_t tag,
                                  const annulusSegment* segments, size_t segment_count,
                                  int64_t deadline_ns, annulusRequest** request);
  annulusTransportStatus (*irecv)(annulusTransport* transport, int32_t peer, uint64_t tag,
                                  const annulusSegment* segments, size_t segment_count,
                                  int64_t deadline_ns, annulusRequest** request);
  /* Not blocking. `*done` = 1 once complete, with the completion filled in. */
  annulusTransportStatus (*test)(annulusRequest* request, int32_t* done,
                                 annulusCompletion* completion);
  /* Blocks until all are complete (their deadlines and abort bound the wait). */
  annulusTransportStatus (*wait)(annulusRequest* const* requests, size_t count,
                                 annulusCompletion* completions);
  /* Returns a completed request to the transport. */
  void (*release)(annulusRequest* request);

  /* From any thread: completes everything with ABORTED, here and at the peers. Idempotent. */
  void (*abort)(annulusTransport* transport, const char* reason);
  /* Copies the first failure seen, in words ("peer 3 silent for 1.0 s"), and the peer (-1: none).
   */
  void (*last_error)(annulusTransport* transport, char* text, size_t text_bytes, int32_t* peer);
  /* Aborts if need be, joins threads, frees everything. No operation may be posted any more. */
  void (*close)(annulusTransport* transport);
  /* Description of the path to a peer: "shm", "tcp", "self", "none". Static string. */
  const char* (*path)(annulusTransport* transport, int32_t peer);

  /* Since abi_minor 1. Check struct_size before use; may be NULL. */

  void (*stats)(annulusTransport* transport, annulusTransportStats* stats);
  /* Has `notify(context)` called, from a thread of the transport, after one or more operations have
   * completed. It must not block nor call the transport. Set it before the first operation; NULL
   * ends it. */
  void (*set_notify)(annulusTransport* transport, void (*notify)(void* context), void* context);

  /* Since abi_minor 2; may be NULL. What a thread posts between the two may start together, and
   * does not start before group_end; it does not wait in between. Every rank that has a part in a
   * group's transfers posts its own in one group. Groups do not nest. */
  void (*group_begin)(annulusTransport* transport);
  annulusTransportStatus (*group_end)(annulusTransport* transport);
  /* The last failure of `open` on this thread, in words; never NULL. The function may be NULL. */
  const char* (*open_error)(void);
} annulusTransportV1;

#ifdef __cplusplus
}
#endif

#endif /* ANNULUS_SERVER_TRANSPORT_TRANSPORT_PLUGIN_H_ */
