// SPDX-License-Identifier: Apache-2.0
#include "kernels/validate.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/head_dim.h"
#include "kernels/tensor_view.h"
#include "server/base/status_macros.h"

namespace annulus::kernels {
namespace {

// Keeps every sum of positions, offsets and rows far from overflow.
constexpr int64_t kIndexMax = int64_t{1} << 48;

bool InRange(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

bool KnownDtype(int dtype) {
  return dtype == ANNULUS_F32 || dtype == ANNULUS_BF16 || dtype == ANNULUS_F16;
}

absl::Status Invalid(absl::string_view what) { return absl::InvalidArgumentError(what); }

std::string ShapeOf(const annulusTensor& t) {
  return absl::StrCat("[", t.batch, ", ", t.rows, ", ", t.heads, ", ", t.head_dim, "]");
}

absl::Status CheckTensor(absl::string_view name, const annulusTensor* t) {
  if (t == nullptr) return Invalid(absl::StrCat(name, ": null tensor"));
  if (!KnownDtype(RawValue(t->dtype))) {
    return Invalid(absl::StrCat(name, ": unknown dtype ", RawValue(t->dtype)));
  }
  if (!InRange(t->batch, 0, kIndexMax) || !InRange(t->rows, 0, kIndexMax) ||
      !InRange(t->heads, 1, kIndexMax) || !InRange(t->head_dim, 1, kHeadDimMax)) {
    return Invalid(absl::StrCat(name, ": shape ", ShapeOf(*t),
                                " with a negative or absurd extent, ", "or a head size above ",
                                kHeadDimMax));
  }
  if (t->batch_stride < 0 || t->row_stride < 0 || t->head_stride < 0) {
    return Invalid(absl::StrCat(name, ": negative stride"));
  }
  if (t->data == nullptr && t->batch * t->rows > 0) {
    return Invalid(absl::StrCat(name, ": null data for shape ", ShapeOf(*t)));
  }
  return absl::OkStatus();
}

absl::Status CheckFloatTensor(absl::string_view name, const annulusTensor* t) {
  ANNULUS_RETURN_IF_ERROR(CheckTensor(name, t));
  if (t->dtype != ANNULUS_F32) {
    return Invalid(absl::StrCat(name, ": expected dtype f32, got ", DtypeName(t->dtype)));
  }
  return absl::OkStatus();
}

absl::Status CheckSameShape(absl::string_view a_name, const annulusTensor& a,
                            absl::string_view b_name, const annulusTensor& b, bool rows) {
  if (a.batch != b.batch || a.heads != b.heads || a.head_dim != b.head_dim ||
      (rows && a.rows != b.rows)) {
    return Invalid(absl::StrCat(a_name, " ", ShapeOf(a), " and ", b_name, " ", ShapeOf(b),
                                " differ in shape"));
  }
  return absl::OkStatus();
}

// A statistic covers the rows of `t`: same batch, rows and heads.
absl::Status CheckRowStat(absl::string_view name, const annulusRowStat* stat,
                          absl::string_view t_name, const annulusTensor& t) {
  if (stat == nullptr) return Invalid(absl::StrCat(name, ": null"));
  if (stat->batch != t.batch || stat->rows != t.rows || stat->heads != t.heads) {
    return Invalid(absl::StrCat(name, " [", stat->batch, ", ", stat->rows, ", ", stat->heads,
                                "] does not cover ", t_name, " ", ShapeOf(t)));
  }
  if (stat->batch_stride < 0 || stat->row_stride < 0) {
    return Invalid(absl::StrCat(name, ": negative stride"));
  }
  if (stat->data == nullptr && t.batch * t.rows > 0) {
    return Invalid(absl::StrCat(name, ": null data"));
  }
  return absl::OkStatus();
}

// Spans stay inside [0, rows) of their tensor, also when moved by row_offset inside offset_rows.
absl::Status CheckSpans(absl::string_view name, const annulusSpan* spans, size_t count,
                        int64_t rows, int64_t row_offset, int64_t offset_rows) {
  if (spans == nullptr && count > 0) return Invalid(absl::StrCat(name, ": null with ", count));
  for (size_t i = 0; i < count; ++i) {
    const annulusSpan& s = spans[i];
    const std::string label = absl::StrCat(name, "[", i, "]");
    if (!InRange(s.count, 0, kIndexMax) || !InRange(s.row, 0, kIndexMax) ||
        !InRange(s.position, -kIndexMax, kIndexMax)) {
      return Invalid(absl::StrCat(label, ": row ", s.row, ", count ", s.count, ", position ",
                                  s.position, " out of range"));
    }
    if (!InRange(s.stride, 1, kIndexMax / (s.count > 0 ? s.count : 1))) {
      return Invalid(absl::StrCat(label, ": stride ", s.stride, ", expected at least 1"));
    }
    if (s.row + s.count > rows) {
      return Invalid(absl::StrCat(label, ": rows ", s.row, " to ", s.row + s.count, " of ", rows));
    }
    if (!InRange(row_offset, -kIndexMax, kIndexMax) ||
        (s.count > 0 && (s.row + row_offset < 0 || s.row + s.count + row_offset > offset_rows))) {
      return Invalid(absl::StrCat(label, ": rows ", s.row, " to ", s.row + s.count, " moved by ",
                                  row_offset, " leave the ", offset_rows, " rows of the output"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMask(const annulusMask& mask, float softmax_scale) {
  const int kind = RawValue(mask.kind);
  if (kind != ANNULUS_MASK_FULL && kind != ANNULUS_MASK_CAUSAL) {
    return Invalid(absl::StrCat("mask: unknown kind ", kind));
  }
  if (!InRange(mask.causal_offset, -kIndexMax, kIndexMax) ||
      !InRange(mask.window_left, -1, 2 * kIndexMax)) {
    return Invalid(absl::StrCat("mask: causal_offset ", mask.causal_offset, ", window_left ",
                                mask.window_left, " out of range (-1: no window)"));
  }
  if (!std::isfinite(softmax_scale)) return Invalid("softmax_scale is not finite");
  return absl::OkStatus();
}

template <typename Args>
absl::Status CheckStruct(absl::string_view name, const Args* args) {
  if (args == nullptr) return Invalid(absl::StrCat(name, ": null arguments"));
  if (args->struct_size < sizeof(Args)) {
    return Invalid(absl::StrCat(name, ": struct_size ", args->struct_size, ", expected at least ",
                                sizeof(Args)));
  }
  return absl::OkStatus();
}

// q, k and v together: dtype, heads, batch and head size.
absl::Status CheckQkv(const annulusTensor& q, const annulusTensor& k, const annulusTensor& v) {
  ANNULUS_RETURN_IF_ERROR(CheckTensor("q", &q));
  ANNULUS_RETURN_IF_ERROR(CheckTensor("k", &k));
  ANNULUS_RETURN_IF_ERROR(CheckTensor("v", &v));
  ANNULUS_RETURN_IF_ERROR(CheckSupports(RawValue(q.dtype), q.head_dim, q.heads, k.heads));
  ANNULUS_RETURN_IF_ERROR(CheckSameShape("k", k, "v", v, true));
  if (k.batch != q.batch || k.head_dim != q.head_dim) {
    return Invalid(
        absl::StrCat("q ", ShapeOf(q), " and k ", ShapeOf(k), " differ in batch or head size"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSupports(int dtype, int64_t head_dim, int64_t query_heads, int64_t kv_heads) {
  if (!KnownDtype(dtype)) return Invalid(absl::StrCat("unknown dtype ", dtype));
  if (!InRange(head_dim, kHeadDimMin, kHeadDimMax) || head_dim % kHeadDimStep != 0) {
    return Invalid(absl::StrCat("head size ", head_dim, ", expected a multiple of ", kHeadDimStep,
                                " from ", kHeadDimMin, " to ", kHeadDimMax));
  }
  if (query_heads < 1 || kv_heads < 1 || query_heads % kv_heads != 0) {
    return Invalid(absl::StrCat(query_heads, " query heads over ", kv_heads,
                                " KV heads, expected a multiple"));
  }
  return absl::OkStatus();
}

absl::Status CheckAttend(const annulusAttendArgs* args) {
  ANNULUS_RETURN_IF_ERROR(CheckStruct("attend", args));
  ANNULUS_RETURN_IF_ERROR(CheckQkv(args->q, args->k, args->v));
  ANNULUS_RETURN_IF_ERROR(CheckFloatTensor("o", &args->o));
  ANNULUS_RETURN_IF_ERROR(CheckSameShape("q", args->q, "o", args->o, false));
  ANNULUS_RETURN_IF_ERROR(CheckRowStat("lse", &args->lse, "o", args->o));
  ANNULUS_RETURN_IF_ERROR(CheckMask(args->mask, args->softmax_scale));
  ANNULUS_RETURN_IF_ERROR(CheckSpans("q_spans", args->q_spans, args->q_span_count, args->q.rows,
                                     args->o_row_offset, args->o.rows));
  return CheckSpans("kv_spans", args->kv_spans, args->kv_span_count, args->k.rows, 0, args->k.rows);
}

absl::Status CheckAttendBackward(const annulusAttendBackwardArgs* args) {
  ANNULUS_RETURN_IF_ERROR(CheckStruct("attend_backward", args));
  ANNULUS_RETURN_IF_ERROR(CheckQkv(args->q, args->k, args->v));
  ANNULUS_RETURN_IF_ERROR(CheckTensor("do", &args->d_o));
  ANNULUS_RETURN_IF_ERROR(CheckSameShape("q", args->q, "do", args->d_o, true));
  ANNULUS_RETURN_IF_ERROR(CheckFloatTensor("dq", &args->dq));
  ANNULUS_RETURN_IF_ERROR(CheckFloatTensor("dk", &args->dk));
  ANNULUS_RETURN_IF_ERROR(CheckFloatTensor("dv", &args->dv));
  ANNULUS_RETURN_IF_ERROR(CheckSameShape("q", args->q, "dq", args->dq, false));
  ANNULUS_RETURN_IF_ERROR(CheckSameShape("k", args->k, "dk", args->dk, false));
  ANNULUS_RETURN_IF_ERROR(CheckSameShape("dk", args->dk, "dv", args->dv, true));
  ANNULUS_RETURN_IF_ERROR(CheckRowStat("lse", &args->lse, "dq", args->dq));
  ANNULUS_RETURN_IF_ERROR(CheckRowStat("delta", &args->delta, "dq", args->dq));
  ANNULUS_RETURN_IF_ERROR(CheckMask(args->mask, args->softmax_scale));
  ANNULUS_RETURN_IF_ERROR(CheckSpans("q_spans", args->q_spans, args->q_span_count, args->q.rows,
                                     args->dq_row_offset, args->dq.rows));
  return CheckSpans("kv_spans", args->kv_spans, args->kv_span_count, args->k.rows,
                    args->dkv_row_offset, args->dk.rows);
}

absl::Status CheckReset(const annulusTensor* o, const annulusRowStat* lse) {
  ANNULUS_RETURN_IF_ERROR(CheckFloatTensor("o", o));
  return CheckRowStat("lse", lse, "o", *o);
}

absl::Status CheckRowDots(const annulusTensor* d_o, const annulusTensor* o,
                          const annulusRowStat* delta) {
  ANNULUS_RETURN_IF_ERROR(CheckTensor("do", d_o));
  ANNULUS_RETURN_IF_ERROR(CheckTensor("o", o));
  ANNULUS_RETURN_IF_ERROR(CheckSameShape("do", *d_o, "o", *o, true));
  return CheckRowStat("delta", delta, "o", *o);
}

absl::Status CheckMerge(const annulusTensor* o, const annulusRowStat* lse, const annulusTensor* o2,
                        const annulusRowStat* lse2) {
  ANNULUS_RETURN_IF_ERROR(CheckReset(o, lse));
  ANNULUS_RETURN_IF_ERROR(CheckFloatTensor("o2", o2));
  ANNULUS_RETURN_IF_ERROR(CheckSameShape("o", *o, "o2", *o2, true));
  return CheckRowStat("lse2", lse2, "o2", *o2);
}

absl::Status CheckAccumulate(const float* dst, const void* src, int src_dtype, int64_t count) {
  if (count < 0) return Invalid(absl::StrCat("accumulate: count ", count));
  if (src_dtype != ANNULUS_F32 && src_dtype != ANNULUS_BF16) {
    return Invalid(absl::StrCat("accumulate: expected dtype f32 or bf16, got dtype ", src_dtype));
  }
  if (count > 0 && (dst == nullptr || src == nullptr)) return Invalid("accumulate: null memory");
  return absl::OkStatus();
}

absl::Status CheckFinish(const annulusTensor* src, const annulusTensor* dst) {
  ANNULUS_RETURN_IF_ERROR(CheckTensor("src", src));
  ANNULUS_RETURN_IF_ERROR(CheckTensor("dst", dst));
  return CheckSameShape("src", *src, "dst", *dst, true);
}

}  // namespace annulus::kernels
