// SPDX-License-Identifier: Apache-2.0
#include "server/ring/digest.h"

#include <openssl/sha.h>

#include "absl/strings/escaping.h"
#include "server/ring/plan_json.h"

namespace annulus::ring {

std::string Sha256Hex(absl::string_view bytes) {
  unsigned char hash[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), hash);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(hash), sizeof(hash)));
}

std::string PlanDigest(const Plan& plan) { return Sha256Hex(CanonicalPlanJson(plan)); }

}  // namespace annulus::ring
