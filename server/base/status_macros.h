// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Leaves the enclosing function with the status of `expr` unless it is OK.
#define ANNULUS_RETURN_IF_ERROR(expr)                                   \
  do {                                                                  \
    if (absl::Status annulus_status_ = (expr); !annulus_status_.ok()) { \
      return annulus_status_;                                           \
    }                                                                   \
  } while (false)

// ANNULUS_ASSIGN_OR_RETURN(Plan plan, ParsePlan(text)): declares or assigns the value, or leaves
// the enclosing function with the status.
#define ANNULUS_ASSIGN_OR_RETURN(lhs, expr) \
  ANNULUS_ASSIGN_OR_RETURN_IMPL_(ANNULUS_CONCAT_(annulus_statusor_, __LINE__), lhs, expr)
// NOLINTBEGIN(bugprone-macro-parentheses): lhs may be a declaration, tmp is a name.
#define ANNULUS_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                   \
  if (!tmp.ok()) return std::move(tmp).status();       \
  lhs = *std::move(tmp)
// NOLINTEND(bugprone-macro-parentheses)
#define ANNULUS_CONCAT_(a, b) ANNULUS_CONCAT_IMPL_(a, b)
#define ANNULUS_CONCAT_IMPL_(a, b) a##b
