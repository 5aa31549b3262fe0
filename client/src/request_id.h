// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace annulus::client {

// 64 bits from the system's generator.
uint64_t RandomBits();

// UUID4, RFC 4122 text form.
std::string NewRequestId();

// The id under which all ranks of a group call its collective `number` at `epoch`: equal on every
// rank without a word between them, different for another group, job, epoch or number. At most 64
// characters of [A-Za-z0-9._-].
std::string CollectiveRequestId(const std::string& group, const std::string& job_id, uint64_t epoch,
                                uint64_t number);

}  // namespace annulus::client
