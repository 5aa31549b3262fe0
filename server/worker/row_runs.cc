// SPDX-License-Identifier: Apache-2.0
#include "server/worker/row_runs.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"

namespace annulus::worker {
namespace {

// Where a layout holds a token, and how far a walk with the wanted stride stays evenly spaced.
struct Place {
  int64_t row = 0;
  int64_t row_step = 1;
  int64_t count = 1;
};

std::optional<Place> Find(const ring::TokenRanges& layout, int64_t token, int64_t stride) {
  int64_t first_row = 0;
  for (const ring::TokenRange& range : layout) {
    const int64_t offset = token - range.begin;
    if (offset < 0 || token >= range.end || offset % range.stride != 0) {
      first_row += range.count();
      continue;
    }
    Place place{.row = first_row + offset / range.stride};
    if (stride % range.stride == 0) {
      place.row_step = stride / range.stride;
      place.count = (range.end - token + stride - 1) / stride;
    }
    return place;
  }
  return std::nullopt;
}

}  // namespace

absl::Status CheckTokens(const ring::TokenRanges& tokens, int64_t rows) {
  if (tokens.size() > kTokenRangesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a tensor has ", tokens.size(), " token ranges, at most ", kTokenRangesMax, " are taken"));
  }
  int64_t count = 0;
  for (const ring::TokenRange& range : tokens) {
    if (range.begin < 0 || range.end < range.begin || range.end > kTokensMax || range.stride < 1 ||
        range.stride > kTokensMax) {
      return absl::InvalidArgumentError(absl::StrCat("token range [", range.begin, ", ", range.end,
                                                     ", ", range.stride,
                                                     "] is not 0 <= begin <= end, stride >= 1"));
    }
    count += range.count();
  }
  if (count != rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("the token ranges count ", count, " tokens for ", rows, " rows"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RowRun>> LocateRuns(const ring::TokenRanges& wanted,
                                               std::span<const ring::TokenRanges* const> layouts) {
  std::vector<RowRun> runs;
  for (const ring::TokenRange& range : wanted) {
    int64_t left = range.count();
    int64_t token = range.begin;
    while (left > 0) {
      RowRun run{.count = left, .position = token, .stride = range.stride};
      for (size_t t = 0; t < layouts.size(); ++t) {
        const std::optional<Place> place = Find(*layouts[t], token, range.stride);
        if (!place) {
          return absl::InvalidArgumentError(absl::StrCat("the tensor does not hold token ", token,
                                                         " of the plan's range [", range.begin,
                                                         ", ", range.end, ", ", range.stride, "]"));
        }
        run.in[t] = {place->row, place->row_step};
        run.count = std::min(run.count, place->count);
      }
      if (run.count == 1) {
        run.stride = 1;
        for (size_t t = 0; t < layouts.size(); ++t) run.in[t].row_step = 1;
      }
      if (runs.size() == kRowRunsMax) {
        return absl::ResourceExhaustedError(
            absl::StrCat("a tensor's rows are too scattered: more than ", kRowRunsMax, " runs"));
      }
      runs.push_back(run);
      token += run.count * range.stride;
      left -= run.count;
    }
  }
  return runs;
}

namespace {

// How many view rows after the group's start the run starts, if that is the same in each tensor
// and the run's steps fit the view; the group may have to adopt the run's steps.
std::optional<int64_t> DistanceFrom(const RunGroup& group, const RowRun& run, size_t tensors) {
  std::optional<int64_t> distance;
  for (size_t t = 0; t < tensors; ++t) {
    const int64_t step = group.view[t].row_step;
    const int64_t rows = run.in[t].row - group.view[t].row;
    if ((run.count > 1 && run.in[t].row_step != step) || rows % step != 0) return std::nullopt;
    if (distance && *distance != rows / step) return std::nullopt;
    distance = rows / step;
  }
  return distance;
}

}  // namespace

std::vector<RunGroup> GroupRuns(const std::vector<RowRun>& runs, size_t tensors) {
  // A group's view starts at its first run; runs before it would have negative rows, so the start
  // moves back when one joins.
  constexpr size_t kGroupsSearched = 16;
  std::vector<RunGroup> groups;
  for (const RowRun& run : runs) {
    RunGroup* home = nullptr;
    int64_t distance = 0;
    const size_t first = groups.size() > kGroupsSearched ? groups.size() - kGroupsSearched : 0;
    for (size_t g = first; g < groups.size() && home == nullptr; ++g) {
      if (const auto found = DistanceFrom(groups[g], run, tensors)) {
        home = &groups[g];
        distance = *found;
      }
    }
    if (home == nullptr) {
      home = &groups.emplace_back();
      home->view = run.in;
    }
    if (distance < 0) {
      for (size_t t = 0; t < tensors; ++t) home->view[t].row += distance * home->view[t].row_step;
      for (annulusSpan& span : home->spans) span.row -= distance;
      home->rows -= distance;
      distance = 0;
    }
    home->spans.push_back({distance, run.count, run.position, run.stride});
    home->rows = std::max(home->rows, distance + run.count);
  }
  return groups;
}

}  // namespace annulus::worker
