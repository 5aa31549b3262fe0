// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/ring/plan.h"

namespace annulus::ring {

// The token lists of a plan as sets of colours. Two tokens have the same colour when no list tells
// them apart, so that millions of tokens become about as many colours as there are pieces.
class TokenSets {
 public:
  // Colours the tokens 0..length-1 by `lists`. InvalidArgument: a list names a token twice (`name`
  // tells which list), or strides and ranges cut the sequence into too many cells.
  static absl::StatusOr<TokenSets> Refine(int64_t length,
                                          const std::vector<const TokenRanges*>& lists,
                                          const std::function<std::string(size_t)>& name);

  // The set of the list with that index; equal lists have equal sets.
  int SetOf(size_t list) const { return set_of_list_[list]; }
  // Sorted colours of a set.
  const std::vector<int>& Colours(int set) const { return sets_[static_cast<size_t>(set)]; }
  bool IsSubset(int part, int whole) const;

  int colour_count() const { return static_cast<int>(tokens_.size()); }
  const TokenRanges& Tokens(int colour) const { return tokens_[static_cast<size_t>(colour)]; }

 private:
  std::vector<TokenRanges> tokens_;     // by colour
  std::vector<std::vector<int>> sets_;  // by set
  std::vector<int> set_of_list_;
};

}  // namespace annulus::ring
