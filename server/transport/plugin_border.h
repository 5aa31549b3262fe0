// SPDX-License-Identifier: Apache-2.0
#pragma once

// The border of a transport plugin: the C functions of its table over the class that it is.
//
//   const annulusTransportV1* MyPlugin() {
//     static const annulusTransportV1 table = [] {
//       annulusTransportV1 made = PluginBorder<MyTransport, MyOperation>::Table("my", caps);
//       made.open = Open;
//       return made;
//     }();
//     return &table;
//   }
//
// `T` has Connect, Post, Abort, LastError, Path, Stats and SetNotify as the table has them;
// `Operation` has `done`, an atomic released after its `completion` is written. Every operation
// ends by its deadline, a fault or the destructor of T, so that Wait does.

#include <atomic>
#include <memory>

#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// Nothing may throw across the ABI; what can are allocations and the start of threads.
template <typename Function>
annulusTransportStatus Guarded(Function&& function) noexcept {
  try {
    return function();
  } catch (...) {
    return ANNULUS_TRANSPORT_RESOURCE;
  }
}

template <typename T, typename Operation>
class PluginBorder {
 public:
  static T* TransportOf(annulusTransport* transport) { return reinterpret_cast<T*>(transport); }

  // `open` is of the form (std::unique_ptr<T>* opened) -> annulusTransportStatus.
  template <typename Open>
  static annulusTransportStatus OpenWith(const annulusTransportOptions* options,
                                         annulusTransport** transport,
                                         annulusTransportHandle* handle, Open&& open) {
    if (options == nullptr || transport == nullptr || handle == nullptr) {
      return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
    }
    return Guarded([&] {
      std::unique_ptr<T> opened;
      const annulusTransportStatus status = open(&opened);
      if (status == ANNULUS_TRANSPORT_OK) {
        *transport = reinterpret_cast<annulusTransport*>(opened.release());
      }
      return status;
    });
  }

  // Everything but `open` and what a plugin may leave out.
  static annulusTransportV1 Table(const char* name, uint64_t caps) {
    return {
        .struct_size = sizeof(annulusTransportV1),
        .abi_minor = 2,
        .name = name,
        .caps = caps,
        .connect = Connect,
        .isend = Post<true>,
        .irecv = Post<false>,
        .test = Test,
        .wait = Wait,
        .release = Release,
        .abort = Abort,
        .last_error = LastError,
        .close = Close,
        .path = Path,
        .stats = Stats,
        .set_notify = SetNotify,
    };
  }

 private:
  struct Posted {
    std::shared_ptr<Operation> operation;
  };

  static const Operation& OperationOf(annulusRequest* request) {
    return *reinterpret_cast<Posted*>(request)->operation;
  }

  static annulusTransportStatus Connect(annulusTransport* transport,
                                        const annulusTransportHandle* handles,
                                        int64_t deadline_ns) {
    return Guarded([&] { return TransportOf(transport)->Connect(handles, deadline_ns); });
  }

  template <bool kSend>
  static annulusTransportStatus Post(annulusTransport* transport, int32_t peer, uint64_t tag,
                                     const annulusSegment* segments, size_t segment_count,
                                     int64_t deadline_ns, annulusRequest** request) {
    if (request == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
    return Guarded([&] {
      auto posted = std::make_unique<Posted>();
      const annulusTransportStatus status = TransportOf(transport)->Post(
          kSend, peer, tag, segments, segment_count, deadline_ns, &posted->operation);
      if (status == ANNULUS_TRANSPORT_OK) {
        *request = reinterpret_cast<annulusRequest*>(posted.release());
      }
      return status;
    });
  }

  static annulusTransportStatus Test(annulusRequest* request, int32_t* done,
                                     annulusCompletion* completion) {
    if (request == nullptr || done == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
    const Operation& operation = OperationOf(request);
    *done = static_cast<int32_t>(operation.done.load(std::memory_order_acquire));
    if (*done != 0 && completion != nullptr) *completion = operation.completion;
    return ANNULUS_TRANSPORT_OK;
  }

  static annulusTransportStatus Wait(annulusRequest* const* requests, size_t count,
                                     annulusCompletion* completions) {
    if (count > 0 && requests == nullptr) return ANNULUS_TRANSPORT_INVALID_ARGUMENT;
    for (size_t i = 0; i < count; ++i) {
      const Operation& operation = OperationOf(requests[i]);
      operation.done.wait(0, std::memory_order_acquire);
      if (completions != nullptr) completions[i] = operation.completion;
    }
    return ANNULUS_TRANSPORT_OK;
  }

  static void Release(annulusRequest* request) { delete reinterpret_cast<Posted*>(request); }

  static void Abort(annulusTransport* transport, const char* reason) {
    Guarded([&] {
      TransportOf(transport)->Abort(reason);
      return ANNULUS_TRANSPORT_OK;
    });
  }

  static void LastError(annulusTransport* transport, char* text, size_t text_bytes, int32_t* peer) {
    TransportOf(transport)->LastError(text, text_bytes, peer);
  }

  static void Close(annulusTransport* transport) { delete TransportOf(transport); }

  static const char* Path(annulusTransport* transport, int32_t peer) {
    return TransportOf(transport)->Path(peer);
  }

  static void Stats(annulusTransport* transport, annulusTransportStats* stats) {
    TransportOf(transport)->Stats(stats);
  }

  static void SetNotify(annulusTransport* transport, void (*notify)(void*), void* context) {
    TransportOf(transport)->SetNotify(notify, context);
  }
};

}  // namespace annulus::transport
