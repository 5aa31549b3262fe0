// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace annulus {

// Sanitizers cost a factor of ten: the pure, single-threaded properties try fewer cases there.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kUnderSanitizer = true;
#else
inline constexpr bool kUnderSanitizer = false;
#endif

}  // namespace annulus
