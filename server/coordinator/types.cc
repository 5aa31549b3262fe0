// SPDX-License-Identifier: Apache-2.0
#include "server/coordinator/types.h"

namespace annulus::coordinator {

const char* FaultReasonName(FaultReason reason) {
  switch (reason) {
    case FaultReason::kWorkerLost:
      return "WORKER_LOST";
    case FaultReason::kWorkerSilent:
      return "WORKER_SILENT";
    case FaultReason::kPeerUnreachable:
      return "PEER_UNREACHABLE";
    case FaultReason::kRequestFailed:
      return "REQUEST_FAILED";
    case FaultReason::kSetupFailed:
      return "SETUP_FAILED";
  }
  return "UNKNOWN";
}

const char* GroupPhaseName(GroupPhase phase) {
  switch (phase) {
    case GroupPhase::kWaiting:
      return "WAITING";
    case GroupPhase::kPreparing:
      return "PREPARING";
    case GroupPhase::kConnecting:
      return "CONNECTING";
    case GroupPhase::kReady:
      return "READY";
  }
  return "UNKNOWN";
}

}  // namespace annulus::coordinator
