// SPDX-License-Identifier: Apache-2.0
#include "server/ring/checker/token_sets.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "server/base/status_macros.h"
#include "server/ring/checker/violation.h"
#include "server/ring/names.h"
#include "server/ring/token_ranges.h"

namespace annulus::ring {
namespace {

constexpr int64_t kMaxStride = int64_t{1} << 16;  // common multiple of all strides
constexpr int64_t kMaxCells = int64_t{1} << 22;
constexpr int64_t kMaxVisits = int64_t{1} << 27;  // of cells, by all ranges together

// Cells: the sequence cut at every begin and end, each segment dealt out by residue modulo the
// common multiple of all strides. Every range is a union of cells.
class Cells {
 public:
  absl::Status Cut(int64_t length, const std::vector<TokenRange>& ranges) {
    cuts_ = {0, length};
    for (const TokenRange& range : ranges) {
      cuts_.push_back(range.begin);
      cuts_.push_back(range.end);
      // Checked before the product is formed.
      const int64_t factor = range.stride / std::gcd(modulus_, range.stride);
      if (factor > kMaxStride / modulus_) {
        return Violation("complexity",
                         absl::StrCat("strides have no common multiple up to ", kMaxStride));
      }
      modulus_ *= factor;
    }
    std::sort(cuts_.begin(), cuts_.end());
    cuts_.erase(std::unique(cuts_.begin(), cuts_.end()), cuts_.end());
    first_cell_.push_back(0);
    for (size_t segment = 0; segment + 1 < cuts_.size(); ++segment) {
      first_cell_.push_back(first_cell_.back() +
                            std::min(cuts_[segment + 1] - cuts_[segment], modulus_));
      if (first_cell_.back() > kMaxCells) {
        return Violation("complexity", absl::StrCat("ranges cut the sequence into more than ",
                                                    kMaxCells, " cells"));
      }
    }
    return absl::OkStatus();
  }

  int64_t count() const { return first_cell_.back(); }

  // Calls visit(cell) for every cell of the range.
  template <typename Visit>
  void ForEach(const TokenRange& range, const Visit& visit) const {
    auto cut = std::lower_bound(cuts_.begin(), cuts_.end(), range.begin);
    for (; *cut < range.end; ++cut) {
      const size_t segment = static_cast<size_t>(cut - cuts_.begin());
      const int64_t past = (*cut - range.begin) % range.stride;
      const int64_t first = first_cell_[segment] + (past == 0 ? 0 : range.stride - past);
      for (int64_t cell = first; cell < first_cell_[segment + 1]; cell += range.stride) {
        visit(static_cast<size_t>(cell));
      }
    }
  }

  // Calls visit(cell, its tokens) for every cell.
  template <typename Visit>
  void ForEachCell(const Visit& visit) const {
    for (size_t segment = 0; segment + 1 < cuts_.size(); ++segment) {
      for (int64_t cell = first_cell_[segment]; cell < first_cell_[segment + 1]; ++cell) {
        visit(static_cast<size_t>(cell), TokenRange{cuts_[segment] + cell - first_cell_[segment],
                                                    cuts_[segment + 1], modulus_});
      }
    }
  }

 private:
  int64_t modulus_ = 1;
  std::vector<int64_t> cuts_;        // ascending, from 0 to the length
  std::vector<int64_t> first_cell_;  // by segment, and the total
};

// Splits colours until every range is a union of colours.
class Colouring {
 public:
  explicit Colouring(const Cells& cells)
      : cells_(cells), colour_(static_cast<size_t>(cells.count()), 0), size_{cells.count()} {}

  absl::Status Split(const TokenRange& range) {
    absl::flat_hash_map<int, int64_t> inside;
    cells_.ForEach(range, [&](size_t cell) {
      ++inside[colour_[cell]];
      ++visits_;
    });
    if (visits_ > kMaxVisits) return Violation("complexity", "too many ranges over too many cells");
    absl::flat_hash_map<int, int> renamed;
    for (const auto& [colour, count] : inside) {
      if (count == size_[static_cast<size_t>(colour)]) continue;
      size_[static_cast<size_t>(colour)] -= count;
      renamed[colour] = static_cast<int>(size_.size());
      size_.push_back(count);
    }
    if (renamed.empty()) return absl::OkStatus();
    cells_.ForEach(range, [&](size_t cell) {
      const auto found = renamed.find(colour_[cell]);
      if (found != renamed.end()) colour_[cell] = found->second;
    });
    return absl::OkStatus();
  }

  // Sorted; a colour that lies in two of the ranges is named twice.
  std::vector<int> ColoursOf(const TokenRanges& list) const {
    std::vector<int> colours;
    for (const TokenRange& range : list) {
      const size_t begin = colours.size();
      cells_.ForEach(Canonical(range), [&](size_t cell) { colours.push_back(colour_[cell]); });
      const auto first = colours.begin() + static_cast<std::ptrdiff_t>(begin);
      std::sort(first, colours.end());
      colours.erase(std::unique(first, colours.end()), colours.end());
    }
    std::sort(colours.begin(), colours.end());
    return colours;
  }

  std::vector<TokenRanges> Tokens() const {
    std::vector<TokenRanges> tokens(size_.size());
    cells_.ForEachCell([&](size_t cell, const TokenRange& range) {
      tokens[static_cast<size_t>(colour_[cell])].push_back(range);
    });
    for (TokenRanges& ranges : tokens) ranges = Normalise(std::move(ranges));
    return tokens;
  }

 private:
  const Cells& cells_;
  std::vector<int> colour_;    // by cell
  std::vector<int64_t> size_;  // by colour, in cells
  int64_t visits_ = 0;
};

std::vector<TokenRange> DistinctRanges(const std::vector<const TokenRanges*>& lists) {
  absl::flat_hash_set<TokenRange> seen;
  std::vector<TokenRange> ranges;
  for (const TokenRanges* list : lists) {
    for (const TokenRange& range : *list) {
      if (seen.insert(range).second) ranges.push_back(Canonical(range));
    }
  }
  return ranges;
}

}  // namespace

absl::StatusOr<TokenSets> TokenSets::Refine(int64_t length,
                                            const std::vector<const TokenRanges*>& lists,
                                            const std::function<std::string(size_t)>& name) {
  const std::vector<TokenRange> ranges = DistinctRanges(lists);
  Cells cells;
  ANNULUS_RETURN_IF_ERROR(cells.Cut(length, ranges));
  Colouring colouring(cells);
  for (const TokenRange& range : ranges) ANNULUS_RETURN_IF_ERROR(colouring.Split(range));

  TokenSets sets;
  sets.tokens_ = colouring.Tokens();
  absl::flat_hash_map<absl::Span<const TokenRange>, int> known;
  int64_t colours_listed = 0;
  for (size_t i = 0; i < lists.size(); ++i) {
    const auto [entry, is_new] = known.try_emplace(absl::MakeConstSpan(*lists[i]), known.size());
    sets.set_of_list_.push_back(entry->second);
    if (!is_new) continue;
    std::vector<int> colours = colouring.ColoursOf(*lists[i]);
    if (std::adjacent_find(colours.begin(), colours.end()) != colours.end()) {
      return Violation("shape",
                       absl::StrCat(name(i), " names a token twice: ", ToString(*lists[i])));
    }
    colours_listed += static_cast<int64_t>(colours.size());
    if (colours_listed > kMaxVisits)
      return Violation("complexity", "too many different token lists");
    sets.sets_.push_back(std::move(colours));
  }
  return sets;
}

bool TokenSets::IsSubset(int part, int whole) const {
  if (part == whole) return true;
  const std::vector<int>& a = Colours(part);
  const std::vector<int>& b = Colours(whole);
  return std::includes(b.begin(), b.end(), a.begin(), a.end());
}

}  // namespace annulus::ring
