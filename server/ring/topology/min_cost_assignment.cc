// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/min_cost_assignment.h"

#include <cstddef>
#include <limits>

namespace annulus::ring {
namespace {

// Rows and columns are counted from 1; column 0 is where the row being placed stands.
class Assignment {
 public:
  explicit Assignment(const std::vector<std::vector<int64_t>>& costs)
      : costs_(costs),
        columns_(costs.empty() ? 0 : costs.front().size()),
        row_potential_(costs.size() + 1),
        column_potential_(columns_ + 1),
        row_of_(columns_ + 1) {}

  std::vector<int> Run() {
    for (size_t row = 1; row <= costs_.size(); ++row) Place(row);
    std::vector<int> column_of(costs_.size());
    for (size_t column = 1; column <= columns_; ++column) {
      if (row_of_[column] != 0) column_of[row_of_[column] - 1] = static_cast<int>(column) - 1;
    }
    return column_of;
  }

 private:
  static constexpr int64_t kFar = std::numeric_limits<int64_t>::max() / 4;

  // Finds the cheapest alternating path from `row` to a free column, then shifts along it.
  void Place(size_t row) {
    row_of_[0] = row;
    std::vector<int64_t> slack(columns_ + 1, kFar);
    std::vector<size_t> came_from(columns_ + 1);
    std::vector<bool> seen(columns_ + 1);
    size_t column = 0;
    while (row_of_[column] != 0) column = Extend(column, &slack, &came_from, &seen);
    for (; column != 0; column = came_from[column]) row_of_[column] = row_of_[came_from[column]];
  }

  size_t Extend(size_t at, std::vector<int64_t>* slack, std::vector<size_t>* came_from,
                std::vector<bool>* seen) {
    (*seen)[at] = true;
    const size_t row = row_of_[at];
    size_t next = 0;
    int64_t least = kFar;
    for (size_t column = 1; column <= columns_; ++column) {
      if ((*seen)[column]) continue;
      const int64_t reduced =
          costs_[row - 1][column - 1] - row_potential_[row] - column_potential_[column];
      if (reduced < (*slack)[column]) {
        (*slack)[column] = reduced;
        (*came_from)[column] = at;
      }
      if ((*slack)[column] < least) {
        least = (*slack)[column];
        next = column;
      }
    }
    for (size_t column = 0; column <= columns_; ++column) {
      if ((*seen)[column]) {
        row_potential_[row_of_[column]] += least;
        column_potential_[column] -= least;
      } else {
        (*slack)[column] -= least;
      }
    }
    return next;
  }

  const std::vector<std::vector<int64_t>>& costs_;
  const size_t columns_;
  std::vector<int64_t> row_potential_;
  std::vector<int64_t> column_potential_;
  std::vector<size_t> row_of_;  // 0: free
};

}  // namespace

std::vector<int> MinCostAssignment(const std::vector<std::vector<int64_t>>& costs) {
  return Assignment(costs).Run();
}

}  // namespace annulus::ring
