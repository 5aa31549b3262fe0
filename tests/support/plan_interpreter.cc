// SPDX-License-Identifier: Apache-2.0
#include "tests/support/plan_interpreter.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "server/base/status_macros.h"
#include "server/ring/mask.h"
#include "server/ring/slots.h"
#include "server/ring/token_ranges.h"

namespace annulus::testing {
namespace {

using ring::Plan;
using ring::SlotTable;
using ring::TokenRanges;
using ring::Transfer;

constexpr double kPoison = std::numeric_limits<double>::quiet_NaN();

struct Timing {
  bool reads_late;
  bool writes_late;
};

struct InFlight {
  Timing timing;
  std::vector<double> rows;  // read, not yet written
};

// The online softmax of one query.
struct State {
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0;
  std::vector<double> weighted;
};

class Interpreter {
 public:
  Interpreter(const Plan& plan, const AttentionInput& input, uint64_t timing_seed)
      : plan_(plan),
        input_(input),
        row_(2 * static_cast<size_t>(input.dim)),
        random_(timing_seed),
        in_flight_(plan.transfers.size()),
        states_(static_cast<size_t>(input.query_length)) {
    for (State& state : states_) state.weighted.resize(static_cast<size_t>(input.dim));
    for (int rank = 0; rank < plan.context_parallel_size; ++rank) {
      tables_.emplace_back(plan, rank);
      buffers_.emplace_back();
      for (const ring::Slot& slot : tables_.back().slots()) {
        buffers_.back().emplace_back(static_cast<size_t>(slot.max_tokens) * row_, kPoison);
      }
      Fill(rank, ring::kOwnSlot, KvRows(plan.ranks[static_cast<size_t>(rank)].kv));
    }
  }

  std::vector<double> KvRows(const TokenRanges& tokens) const {
    std::vector<double> rows;
    for (const int64_t token : ring::Positions(tokens)) {
      const auto at = static_cast<std::ptrdiff_t>(token * input_.dim);
      rows.insert(rows.end(), input_.k.begin() + at, input_.k.begin() + at + input_.dim);
      rows.insert(rows.end(), input_.v.begin() + at, input_.v.begin() + at + input_.dim);
    }
    return rows;
  }

  void Fill(int rank, const std::string& slot, const std::vector<double>& rows) {
    std::copy(rows.begin(), rows.end(), Buffer(rank, slot).begin());
  }

  std::vector<double>& Buffer(int rank, const std::string& slot) {
    const auto r = static_cast<size_t>(rank);
    return buffers_[r][tables_[r].IndexOf(slot)];
  }

  // `attend` is called for each compute with its key rows and, in a backward, its gradient rows.
  template <typename Attend>
  absl::Status Run(const Attend& attend) {
    for (int step = 0; step <= plan_.steps; ++step) {
      ANNULUS_RETURN_IF_ERROR(Complete(step));
      ZeroAccumulators(step);
      ANNULUS_RETURN_IF_ERROR(AddArrivals(step));
      ANNULUS_RETURN_IF_ERROR(Post(step));
      for (const ring::Compute& compute : plan_.computes) {
        if (compute.step == step) ANNULUS_RETURN_IF_ERROR(attend(compute));
      }
    }
    return absl::OkStatus();
  }

  // Pointers to the rows of `tokens` in the slot as it stands in `step`, in order.
  absl::StatusOr<std::vector<double*>> Rows(int rank, const std::string& slot, int step,
                                            const TokenRanges& tokens) {
    const auto r = static_cast<size_t>(rank);
    const size_t index = tables_[r].IndexOf(slot);
    if (index == SlotTable::kNone) return absl::NotFoundError("no such slot");
    const ring::SlotLife* life = tables_[r].LifeAt(index, step);
    if (life == nullptr) return absl::NotFoundError("nothing stands in the slot");
    ANNULUS_ASSIGN_OR_RETURN(const auto spans, ring::LocateRows(life->rows, tokens));
    std::vector<double*> rows;
    for (const ring::RowSpan& span : spans) {
      for (int64_t i = 0; i < span.count; ++i) {
        rows.push_back(&buffers_[r][index][static_cast<size_t>(span.row + i) * row_]);
      }
    }
    return rows;
  }

  std::vector<State>& states() { return states_; }

 private:
  template <typename Visit>
  absl::Status ForTransfersInAnyOrder(const Visit& visit, bool (*at)(const Transfer&, int),
                                      int step) {
    std::vector<size_t> now;
    for (size_t i = 0; i < plan_.transfers.size(); ++i) {
      if (at(plan_.transfers[i], step)) now.push_back(i);
    }
    std::shuffle(now.begin(), now.end(), random_);
    for (const size_t i : now) ANNULUS_RETURN_IF_ERROR(visit(i));
    return absl::OkStatus();
  }

  absl::Status Read(size_t index) {
    const Transfer& transfer = plan_.transfers[index];
    ANNULUS_ASSIGN_OR_RETURN(const auto rows, Rows(transfer.src, transfer.src_slot,
                                                   transfer.post_step, transfer.tokens));
    for (const double* row : rows) {
      in_flight_[index].rows.insert(in_flight_[index].rows.end(), row, row + row_);
    }
    return absl::OkStatus();
  }

  std::vector<double>& Landing(size_t index) {
    const auto dst = static_cast<size_t>(plan_.transfers[index].dst);
    return buffers_[dst][tables_[dst].LandingSlot(index)];
  }

  void Write(size_t index) {
    const std::vector<double>& rows = in_flight_[index].rows;
    std::copy(rows.begin(), rows.end(), Landing(index).begin());
  }

  absl::Status Post(int step) {
    return ForTransfersInAnyOrder(
        [this](size_t i) {
          // A late read cannot be written early.
          const uint64_t draw = random_() % 3;
          in_flight_[i].timing = {draw == 2, draw >= 1};
          if (!in_flight_[i].timing.reads_late) ANNULUS_RETURN_IF_ERROR(Read(i));
          const size_t size =
              static_cast<size_t>(ring::TokenCount(plan_.transfers[i].tokens)) * row_;
          std::fill_n(Landing(i).begin(), size, kPoison);
          if (!in_flight_[i].timing.writes_late) Write(i);
          return absl::OkStatus();
        },
        [](const Transfer& transfer, int now) { return transfer.post_step == now; }, step);
  }

  absl::Status Complete(int step) {
    return ForTransfersInAnyOrder(
        [this](size_t i) {
          if (in_flight_[i].timing.reads_late) ANNULUS_RETURN_IF_ERROR(Read(i));
          if (in_flight_[i].timing.writes_late) Write(i);
          return absl::OkStatus();
        },
        [](const Transfer& transfer, int now) { return transfer.due_step == now; }, step);
  }

  void ZeroAccumulators(int step) {
    for (size_t rank = 0; rank < tables_.size(); ++rank) {
      const std::vector<ring::Slot>& slots = tables_[rank].slots();
      for (size_t slot = 0; slot < slots.size(); ++slot) {
        if (slots[slot].payload != ring::Payload::kDkv) continue;
        for (const ring::SlotLife& life : slots[slot].lives) {
          if (life.begin_step != step) continue;
          std::fill(buffers_[rank][slot].begin(), buffers_[rank][slot].end(), 0.0);
        }
      }
    }
  }

  absl::Status AddArrivals(int step) {
    for (size_t i = 0; i < plan_.transfers.size(); ++i) {
      const Transfer& transfer = plan_.transfers[i];
      if (transfer.due_step != step || transfer.combine != ring::Combine::kAdd) continue;
      ANNULUS_ASSIGN_OR_RETURN(const auto rows,
                               Rows(transfer.dst, transfer.dst_slot, step, transfer.tokens));
      const double* arrived = Landing(i).data();
      for (double* row : rows) {
        for (size_t d = 0; d < row_; ++d) row[d] += *arrived++;
      }
    }
    return absl::OkStatus();
  }

  const Plan& plan_;
  const AttentionInput& input_;
  const size_t row_;  // elements: a row of K and of V, or of dK and of dV
  std::mt19937_64 random_;
  std::vector<InFlight> in_flight_;
  std::vector<State> states_;
  std::vector<SlotTable> tables_;
  std::vector<std::vector<std::vector<double>>> buffers_;  // by rank and slot
};

double RowProduct(const double* a, const double* b, int dim) {
  double sum = 0;
  for (int d = 0; d < dim; ++d) sum += a[d] * b[d];
  return sum;
}

// A full case is trusted, as a kernel trusts it.
bool Attends(const Plan& plan, const ring::Compute& compute, int64_t query, int64_t key) {
  return compute.mask_case == ring::MaskCase::kFull ||
         ring::Sees(plan.mask, plan.kv_length - plan.query_length, query, key);
}

void Merge(double score, const double* v, int dim, State* state) {
  const double max = std::max(state->max, score);
  const double old_scale = std::exp(state->max - max);
  const double weight = std::exp(score - max);
  for (int d = 0; d < dim; ++d) {
    double& element = state->weighted[static_cast<size_t>(d)];
    element = element * old_scale + weight * v[d];
  }
  state->sum = state->sum * old_scale + weight;
  state->max = max;
}

AttentionResult Finished(const std::vector<State>& states) {
  AttentionResult out;
  for (const State& state : states) {
    const bool seen = state.sum != 0;
    out.lse.push_back(seen ? state.max + std::log(state.sum)
                           : -std::numeric_limits<double>::infinity());
    for (const double element : state.weighted) out.o.push_back(seen ? element / state.sum : 0);
  }
  return out;
}

}  // namespace

absl::StatusOr<AttentionResult> RunForward(const Plan& plan, const AttentionInput& input,
                                           uint64_t timing_seed, ResidentRows* resident) {
  Interpreter machine(plan, input, timing_seed);
  const int dim = input.dim;
  ANNULUS_RETURN_IF_ERROR(machine.Run([&](const ring::Compute& compute) -> absl::Status {
    ANNULUS_ASSIGN_OR_RETURN(const auto rows,
                             machine.Rows(compute.rank, compute.slot, compute.step, compute.kv));
    const std::vector<int64_t> keys = ring::Positions(compute.kv);
    for (const int64_t query : ring::Positions(compute.q)) {
      for (size_t i = 0; i < keys.size(); ++i) {
        if (!Attends(plan, compute, query, keys[i])) continue;
        const double* q = &input.q[static_cast<size_t>(query * dim)];
        Merge(RowProduct(q, rows[i], dim), rows[i] + dim, dim,
              &machine.states()[static_cast<size_t>(query)]);
      }
    }
    return absl::OkStatus();
  }));
  if (resident != nullptr) {
    for (const ring::Resident& kept : plan.resident) {
      const auto size = static_cast<std::ptrdiff_t>(ring::TokenCount(kept.kv) * 2 * dim);
      const std::vector<double>& buffer = machine.Buffer(kept.rank, kept.slot);
      (*resident)[kept.rank].assign(buffer.begin(), buffer.begin() + size);
    }
  }
  return Finished(machine.states());
}

absl::StatusOr<AttentionResult> RunBackward(const Plan& plan, const AttentionInput& input,
                                            const AttentionResult& forward, uint64_t timing_seed,
                                            const ResidentRows* resident) {
  Interpreter machine(plan, input, timing_seed);
  for (const ring::Resident& kept : plan.resident) {
    machine.Fill(kept.rank, kept.slot,
                 resident == nullptr ? machine.KvRows(kept.kv) : resident->at(kept.rank));
  }
  const int dim = input.dim;
  AttentionResult out;
  out.dq.resize(input.q.size());
  ANNULUS_RETURN_IF_ERROR(machine.Run([&](const ring::Compute& compute) -> absl::Status {
    ANNULUS_ASSIGN_OR_RETURN(const auto rows,
                             machine.Rows(compute.rank, compute.slot, compute.step, compute.kv));
    ANNULUS_ASSIGN_OR_RETURN(const auto gradients,
                             machine.Rows(compute.rank, compute.into, compute.step, compute.kv));
    const std::vector<int64_t> keys = ring::Positions(compute.kv);
    for (const int64_t query : ring::Positions(compute.q)) {
      const auto at = static_cast<size_t>(query * dim);
      const double delta = RowProduct(&input.d_o[at], &forward.o[at], dim);
      for (size_t i = 0; i < keys.size(); ++i) {
        if (!Attends(plan, compute, query, keys[i])) continue;
        const double p = std::exp(RowProduct(&input.q[at], rows[i], dim) -
                                  forward.lse[static_cast<size_t>(query)]);
        const double ds = p * (RowProduct(&input.d_o[at], rows[i] + dim, dim) - delta);
        for (int d = 0; d < dim; ++d) {
          const size_t element = at + static_cast<size_t>(d);
          out.dq[element] += ds * rows[i][d];
          gradients[i][d] += ds * input.q[element];
          gradients[i][dim + d] += p * input.d_o[element];
        }
      }
    }
    return absl::OkStatus();
  }));
  out.dk.resize(input.k.size());
  out.dv.resize(input.v.size());
  for (const ring::RankShard& shard : plan.ranks) {
    const std::vector<double>& home = machine.Buffer(shard.rank, plan.gradient_home);
    size_t row = 0;
    for (const int64_t key : ring::Positions(shard.kv)) {
      for (int d = 0; d < dim; ++d) {
        const auto element = static_cast<size_t>(key * dim + d);
        out.dk[element] = home[row * 2 * static_cast<size_t>(dim) + static_cast<size_t>(d)];
        out.dv[element] = home[(row * 2 + 1) * static_cast<size_t>(dim) + static_cast<size_t>(d)];
      }
      ++row;
    }
  }
  return out;
}

}  // namespace annulus::testing
