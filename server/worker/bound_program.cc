// SPDX-License-Identifier: Apache-2.0
#include "server/worker/bound_program.h"

#include <algorithm>
#include <span>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/worker/shard_view.h"
#include "server/worker/tensor_bounds.h"

namespace annulus::worker {
namespace {

// K and V, or dK and dV, in one place.
struct Pair {
  PlacedTensor k, v;
};

absl::StatusOr<std::vector<RowRun>> Locate(const char* names, const ring::TokenRanges& wanted,
                                           std::initializer_list<const ring::TokenRanges*> in) {
  auto runs = LocateRuns(wanted, std::span(in.begin(), in.size()));
  if (runs.ok()) return runs;
  return absl::Status(runs.status().code(),
                      absl::StrCat("tensors ", names, ": ", runs.status().message()));
}

class Binder {
 public:
  Binder(const AttendInputs& inputs, const Workspace& space)
      : in_(inputs),
        space_(space),
        program_(*inputs.program),
        shard_(*program_.shard),
        host_wire_(inputs.wire == Memory::kHost) {
    const ring::Plan& plan = *program_.plan;
    mask_ = {plan.mask.kind == ring::MaskKind::kCausal ? ANNULUS_MASK_CAUSAL : ANNULUS_MASK_FULL,
             plan.kv_length - plan.query_length, plan.mask.window_left};
    out_.program = &program_;
    out_.gradient_wire = in_.gradient_wire_bf16 ? ANNULUS_BF16 : ANNULUS_F32;
    const PlacedTensor& output = program_.backward ? in_.dq : in_.o;
    accumulator_ = space_.accumulator == nullptr
                       ? output
                       : PlaceDense(space_.accumulator, ANNULUS_F32, in_.batch, in_.query_heads,
                                    in_.head_dim, &shard_.q);
    delta_ = PlaceDense(space_.delta, ANNULUS_F32, in_.batch, in_.query_heads, 1, &shard_.q);
    if (space_.packed_own != nullptr) packed_ = Dense(space_.packed_own, in_.dtype, &shard_.kv);
  }

  absl::StatusOr<BoundProgram> Run(const Placement& placement) {
    for (const Placement::Moved& moved : placement.moved) {
      ANNULUS_RETURN_IF_ERROR(BindMoved(moved));
    }
    out_.transfers.resize(program_.transfers.size());
    out_.computes.resize(program_.computes.size());
    if (space_.packed_own != nullptr) ANNULUS_RETURN_IF_ERROR(BindPacks());
    if (host_wire_) BindResidentToWire();
    for (size_t i = 0; i < program_.transfers.size(); ++i) {
      ANNULUS_RETURN_IF_ERROR(BindTransfer(program_.transfers[i], &out_.transfers[i]));
    }
    ANNULUS_RETURN_IF_ERROR(program_.backward ? BindBackwardEnds() : BindForwardEnds());
    for (size_t i = 0; i < program_.computes.size(); ++i) {
      const ComputeOp& op = program_.computes[i];
      ANNULUS_RETURN_IF_ERROR(program_.backward ? BindBackward(op, &out_.computes[i])
                                                : BindForward(op, &out_.computes[i]));
    }
    return std::move(out_);
  }

 private:
  Pair Dense(uint8_t* data, annulusDtype dtype, const ring::TokenRanges* tokens) const {
    Pair pair;
    pair.k = PlaceDense(data, dtype, in_.batch, in_.kv_heads, in_.head_dim, tokens);
    pair.v = pair.k;
    pair.v.data += OneBytes(tokens, dtype);
    return pair;
  }
  size_t OneBytes(const ring::TokenRanges* tokens, annulusDtype dtype) const {
    return DenseBytes(in_.batch, ring::TokenCount(*tokens), in_.kv_heads, in_.head_dim, dtype);
  }
  Pair KvIn(int slot, const ring::TokenRanges* tokens) const {
    if (slot == kOwnSlotId) return {in_.k, in_.v};
    return Dense(space_.slots[static_cast<size_t>(slot)], in_.dtype, tokens);
  }
  Pair GradientsIn(int slot, const ring::TokenRanges* tokens) const {
    return Dense(space_.slots[static_cast<size_t>(slot)], ANNULUS_F32, tokens);
  }
  MemoryRange WholeGradients(int slot, const ring::TokenRanges* tokens) const {
    return {space_.slots[static_cast<size_t>(slot)], 2 * OneBytes(tokens, ANNULUS_F32)};
  }

  static annulusCopyArgs Flat(void* to, const void* from, size_t bytes) {
    return {sizeof(annulusCopyArgs), to, from, bytes, 1, bytes, bytes};
  }

  absl::Status BindMoved(const Placement::Moved& moved) {
    const PlacedTensor& from = moved.input ? moved.host : moved.device;
    const PlacedTensor& to = moved.input ? moved.device : moved.host;
    ANNULUS_ASSIGN_OR_RETURN(auto runs,
                             Locate("of the call", *moved.device.tokens, {from.tokens, to.tokens}));
    AppendCopies(from, to, runs,
                 !moved.input ? &out_.downloads
                 : moved.sent ? &out_.first_uploads
                              : &out_.uploads);
    return absl::OkStatus();
  }

  absl::Status BindPacks() {
    for (const auto& [from, to] :
         {std::pair{in_.sent_k, packed_.k}, std::pair{in_.sent_v, packed_.v}}) {
      ANNULUS_ASSIGN_OR_RETURN(auto runs, Locate("k, v", shard_.kv, {from.tokens, to.tokens}));
      const bool leaves = from.memory != in_.wire;
      AppendCopies(from, to, runs, leaves ? &out_.first_to_wire : &out_.packs);
    }
    return absl::OkStatus();
  }

  // KV kept by a forward is on the device alone.
  void BindResidentToWire() {
    if (in_.resident == nullptr) return;
    const size_t slot = static_cast<size_t>(program_.resident_slot);
    if (space_.wire_slots[slot] == nullptr) return;
    out_.first_to_wire.push_back(Flat(space_.wire_slots[slot], space_.slots[slot],
                                      2 * OneBytes(program_.resident_tokens, in_.dtype)));
  }

  absl::Status BindTransfer(const TransferOp& op, BoundTransfer* bound) {
    if (ring::TokenCount(op.transfer->tokens) == 0) return absl::OkStatus();
    absl::Status status;
    if (op.transfer->payload == ring::Payload::kKv) {
      status = op.send ? BindKvSend(op, bound) : BindKvReceive(op, bound);
    } else {
      status = op.send ? BindGradientSend(op, bound) : BindGradientReceive(op, bound);
    }
    for (const annulusSegment& segment : bound->segments) bound->bytes += segment.bytes;
    return status;
  }

  absl::Status BindKvReceive(const TransferOp& op, BoundTransfer* bound) {
    const size_t bytes = 2 * OneBytes(&op.transfer->tokens, in_.dtype);
    uint8_t* slot = space_.slots[static_cast<size_t>(op.slot)];
    uint8_t* wire = host_wire_ ? space_.wire_slots[static_cast<size_t>(op.slot)] : slot;
    bound->segments.push_back({wire, bytes});
    if (host_wire_) bound->from_wire.push_back(Flat(slot, wire, bytes));
    return absl::OkStatus();
  }

  absl::Status BindKvSend(const TransferOp& op, BoundTransfer* bound) {
    if (op.slot == kOwnSlotId) {
      const bool packed = space_.packed_own != nullptr;
      return Segments(packed ? packed_ : Pair{in_.sent_k, in_.sent_v}, op.transfer->tokens, bound);
    }
    const auto& slots = host_wire_ ? space_.wire_slots : space_.slots;
    return Segments(Dense(slots[static_cast<size_t>(op.slot)], in_.dtype, op.slot_tokens),
                    op.transfer->tokens, bound);
  }

  absl::Status Segments(const Pair& pair, const ring::TokenRanges& tokens, BoundTransfer* bound) {
    for (const PlacedTensor& tensor : {pair.k, pair.v}) {
      ANNULUS_ASSIGN_OR_RETURN(auto runs, Locate("k, v", tokens, {tensor.tokens}));
      // A plan may send odd parts of a slot; a transport takes any number of pieces.
      constexpr size_t kNoLimit = ~size_t{0};
      AppendSegments(tensor, runs, 0, kNoLimit, &bound->segments);
    }
    return absl::OkStatus();
  }

  absl::Status BindGradientSend(const TransferOp& op, BoundTransfer* bound) {
    const Pair sums = GradientsIn(op.slot, op.slot_tokens);
    const ring::TokenRanges& tokens = op.transfer->tokens;
    const bool rounded = out_.gradient_wire != ANNULUS_F32;
    if (!rounded && !host_wire_) return Segments(sums, tokens, bound);
    const size_t staging = static_cast<size_t>(op.staging);
    const size_t bytes = 2 * OneBytes(&tokens, out_.gradient_wire);
    uint8_t* const wire = host_wire_ ? space_.wire_sends[staging] : space_.sends[staging];
    bound->segments.push_back({wire, bytes});
    const Pair out = Dense(rounded ? space_.sends[staging] : wire, out_.gradient_wire, &tokens);
    for (const auto& [from, to] : {std::pair{sums.k, out.k}, std::pair{sums.v, out.v}}) {
      ANNULUS_RETURN_IF_ERROR(rounded ? Convert(from, to, tokens, &bound->before_send)
                                      : CopyOut(from, to, tokens, &bound->to_wire));
    }
    if (rounded && host_wire_) bound->to_wire.push_back(Flat(wire, space_.sends[staging], bytes));
    return absl::OkStatus();
  }

  absl::Status BindGradientReceive(const TransferOp& op, BoundTransfer* bound) {
    const ring::TokenRanges& tokens = op.transfer->tokens;
    const size_t bytes = 2 * OneBytes(&tokens, out_.gradient_wire);
    uint8_t* staging = space_.receives[static_cast<size_t>(op.staging)];
    uint8_t* arrives = host_wire_ ? space_.wire_receives[static_cast<size_t>(op.staging)] : staging;
    bound->segments.push_back({arrives, bytes});
    if (host_wire_) bound->from_wire.push_back(Flat(staging, arrives, bytes));
    if (op.zero_first) bound->zero_on_arrival = WholeGradients(op.slot, op.slot_tokens);
    const Pair wire = Dense(staging, out_.gradient_wire, &tokens);
    const Pair sums = GradientsIn(op.slot, op.slot_tokens);
    ANNULUS_ASSIGN_OR_RETURN(auto runs, Locate("dk, dv", tokens, {sums.k.tokens, wire.k.tokens}));
    Add(sums.k, wire.k, runs, &bound->on_arrival);
    Add(sums.v, wire.v, runs, &bound->on_arrival);
    return absl::OkStatus();
  }

  void Add(const PlacedTensor& to, const PlacedTensor& from, const std::vector<RowRun>& runs,
           std::vector<Addition>* additions) const {
    const int64_t row = to.heads * to.head_dim;
    for (int64_t b = 0; b < to.batch; ++b) {
      for (const RowRun& run : runs) {
        const bool together = run.in[0].row_step == 1 && run.in[1].row_step == 1;
        const int64_t pieces = together ? 1 : run.count;
        const int64_t count = together ? run.count * row : row;
        for (int64_t i = 0; i < pieces; ++i) {
          auto* target =
              reinterpret_cast<float*>(to.Row(b, run.in[0].row + i * run.in[0].row_step));
          const uint8_t* source = from.Row(b, run.in[1].row + i * run.in[1].row_step);
          Append({target, source, count}, additions);
        }
      }
    }
  }

  void Append(const Addition& piece, std::vector<Addition>* additions) const {
    if (!additions->empty()) {
      Addition& last = additions->back();
      const auto* from = static_cast<const uint8_t*>(last.from);
      if (last.to + last.count == piece.to &&
          from + last.count * ElementBytes(out_.gradient_wire) == piece.from) {
        last.count += piece.count;
        return;
      }
    }
    additions->push_back(piece);
  }

  absl::Status Convert(const PlacedTensor& from, const PlacedTensor& to,
                       const ring::TokenRanges& tokens, std::vector<Conversion>* conversions) {
    ANNULUS_ASSIGN_OR_RETURN(auto runs, Locate("outputs", tokens, {from.tokens, to.tokens}));
    for (const RowRun& run : runs) {
      conversions->push_back({View(from, run.in[0], run.count), View(to, run.in[1], run.count)});
    }
    return absl::OkStatus();
  }

  absl::Status CopyOut(const PlacedTensor& from, const PlacedTensor& to,
                       const ring::TokenRanges& tokens, std::vector<annulusCopyArgs>* copies) {
    ANNULUS_ASSIGN_OR_RETURN(auto runs, Locate("dk, dv", tokens, {from.tokens, to.tokens}));
    AppendCopies(from, to, runs, copies);
    return absl::OkStatus();
  }

  absl::Status BindForwardEnds() {
    ANNULUS_ASSIGN_OR_RETURN(auto runs,
                             Locate("o, lse", shard_.q, {accumulator_.tokens, in_.lse.tokens}));
    for (const RowRun& run : runs) {
      out_.reset.emplace_back(View(accumulator_, run.in[0], run.count),
                              StatView(in_.lse, run.in[1], run.count));
    }
    if (space_.accumulator == nullptr) return absl::OkStatus();
    return Convert(accumulator_, in_.o, shard_.q, &out_.finish);
  }

  absl::Status BindBackwardEnds() {
    ANNULUS_ASSIGN_OR_RETURN(
        auto runs, Locate("do, o", shard_.q, {in_.d_o.tokens, in_.o.tokens, delta_.tokens}));
    for (const RowRun& run : runs) {
      out_.delta.push_back({View(in_.d_o, run.in[0], run.count), View(in_.o, run.in[1], run.count),
                            StatView(delta_, run.in[2], run.count)});
    }
    ANNULUS_ASSIGN_OR_RETURN(auto dq_runs, Locate("dq", shard_.q, {accumulator_.tokens}));
    std::vector<annulusSegment> segments;
    AppendSegments(accumulator_, dq_runs, 0, kSegmentsMax, &segments);
    for (const annulusSegment& segment : segments) {
      out_.zero.push_back({segment.data, segment.bytes});
    }
    if (space_.accumulator != nullptr) {
      ANNULUS_RETURN_IF_ERROR(Convert(accumulator_, in_.dq, shard_.q, &out_.finish));
    }
    const Pair home = GradientsIn(program_.home_slot, program_.home_tokens);
    if (program_.home_empty) {
      out_.zero_home = WholeGradients(program_.home_slot, program_.home_tokens);
    }
    ANNULUS_RETURN_IF_ERROR(Convert(home.k, in_.dk, shard_.kv, &out_.finish));
    return Convert(home.v, in_.dv, shard_.kv, &out_.finish);
  }

  annulusMask MaskOf(const ring::Compute& compute) const {
    if (compute.mask_case != ring::MaskCase::kFull) return mask_;
    return {ANNULUS_MASK_FULL, 0, -1};
  }

  absl::Status BindForward(const ComputeOp& op, BoundCompute* bound) {
    const Pair kv = KvIn(op.slot, op.slot_tokens);
    ANNULUS_ASSIGN_OR_RETURN(
        auto q_runs,
        Locate("q, o, lse", op.compute->q, {in_.q.tokens, accumulator_.tokens, in_.lse.tokens}));
    ANNULUS_ASSIGN_OR_RETURN(auto kv_runs,
                             Locate("k, v", op.compute->kv, {kv.k.tokens, kv.v.tokens}));
    const auto q_groups = Keep(GroupRuns(q_runs, 3));
    const auto kv_groups = Keep(GroupRuns(kv_runs, 2));
    for (const RunGroup* g : q_groups) {
      for (const RunGroup* h : kv_groups) {
        annulusAttendArgs args{};
        args.struct_size = sizeof(args);
        args.q = View(in_.q, g->view[0], g->rows);
        args.o = View(accumulator_, g->view[1], g->rows);
        args.lse = StatView(in_.lse, g->view[2], g->rows);
        args.k = View(kv.k, h->view[0], h->rows);
        args.v = View(kv.v, h->view[1], h->rows);
        args.q_spans = g->spans.data();
        args.q_span_count = g->spans.size();
        args.kv_spans = h->spans.data();
        args.kv_span_count = h->spans.size();
        args.mask = MaskOf(*op.compute);
        args.softmax_scale = in_.softmax_scale;
        bound->attend.push_back(args);
      }
    }
    return absl::OkStatus();
  }

  absl::Status BindBackward(const ComputeOp& op, BoundCompute* bound) {
    const Pair kv = KvIn(op.slot, op.slot_tokens);
    const Pair sums = GradientsIn(op.into, op.into_tokens);
    if (op.zero_first) bound->zero_first = WholeGradients(op.into, op.into_tokens);
    ANNULUS_ASSIGN_OR_RETURN(auto q_runs, Locate("q, do, dq, lse", op.compute->q,
                                                 {in_.q.tokens, in_.d_o.tokens, accumulator_.tokens,
                                                  in_.lse.tokens, delta_.tokens}));
    ANNULUS_ASSIGN_OR_RETURN(
        auto kv_runs, Locate("k, v", op.compute->kv, {kv.k.tokens, kv.v.tokens, sums.k.tokens}));
    const auto q_groups = Keep(GroupRuns(q_runs, 5));
    const auto kv_groups = Keep(GroupRuns(kv_runs, 3));
    for (const RunGroup* g : q_groups) {
      for (const RunGroup* h : kv_groups) {
        annulusAttendBackwardArgs args{};
        args.struct_size = sizeof(args);
        args.q = View(in_.q, g->view[0], g->rows);
        args.d_o = View(in_.d_o, g->view[1], g->rows);
        args.dq = View(accumulator_, g->view[2], g->rows);
        args.lse = StatView(in_.lse, g->view[3], g->rows);
        args.delta = StatView(delta_, g->view[4], g->rows);
        args.k = View(kv.k, h->view[0], h->rows);
        args.v = View(kv.v, h->view[1], h->rows);
        args.dk = View(sums.k, h->view[2], h->rows);
        args.dv = View(sums.v, h->view[2], h->rows);
        args.q_spans = g->spans.data();
        args.q_span_count = g->spans.size();
        args.kv_spans = h->spans.data();
        args.kv_span_count = h->spans.size();
        args.mask = MaskOf(*op.compute);
        args.softmax_scale = in_.softmax_scale;
        bound->backward.push_back(args);
      }
    }
    return absl::OkStatus();
  }

  // Moves the groups to where they stay; the arguments point at their spans.
  std::vector<const RunGroup*> Keep(std::vector<RunGroup> groups) {
    std::vector<const RunGroup*> kept;
    kept.reserve(groups.size());
    for (RunGroup& group : groups) kept.push_back(&out_.groups.emplace_back(std::move(group)));
    return kept;
  }

  const AttendInputs& in_;
  const Workspace& space_;
  const RankProgram& program_;
  const ring::RankShard& shard_;
  const bool host_wire_;
  annulusMask mask_{};
  PlacedTensor accumulator_;  // float32 o or dq
  PlacedTensor delta_;
  Pair packed_;
  BoundProgram out_;
};

}  // namespace

absl::StatusOr<BoundProgram> Bind(const AttendInputs& inputs, const Placement& placement,
                                  const Workspace& space) {
  return Binder(inputs, space).Run(placement);
}

}  // namespace annulus::worker
