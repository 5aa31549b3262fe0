// SPDX-License-Identifier: Apache-2.0
#include "client/cli/problem.h"

#include <unistd.h>

#include <cstring>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/element_types.h"
#include "client/cli/exit_code.h"
#include "client/cli/random_fill.h"
#include "client/cli/units.h"
#include "kernels/tensor_view.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

// Share of this machine's memory that the tensors of a run may take.
constexpr double kMemoryShareMax = 0.8;

client::DataType FromIo(io::Dtype dtype) {
  switch (dtype) {
    case io::Dtype::kF32:
      return client::DataType::kF32;
    case io::Dtype::kBf16:
      return client::DataType::kBf16;
    case io::Dtype::kF16:
      break;
  }
  return client::DataType::kF16;
}

io::Dtype ToIo(client::DataType dtype) {
  switch (dtype) {
    case client::DataType::kF32:
      return io::Dtype::kF32;
    case client::DataType::kBf16:
      return io::Dtype::kBf16;
    case client::DataType::kF16:
      break;
  }
  return io::Dtype::kF16;
}

// A tensor of the input by name, four-dimensional.
absl::StatusOr<io::TensorView> FindTensor(const io::TensorFile& input, const std::string& name) {
  auto found = input.Find(name);
  if (!found.ok())
    return UsageError(absl::StrCat("--input: ", std::string(found.status().message())));
  if (found->shape.size() != 4) {
    return UsageError(absl::StrCat("--input: ", name, " has shape ", io::ShapeText(found->shape),
                                   ", expected [batch, sequence, heads, head size]"));
  }
  return *found;
}

template <typename Given>
absl::Status MustAgree(const char* flag, const std::optional<Given>& given, int64_t in_file) {
  if (!given || static_cast<int64_t>(*given) == in_file) return absl::OkStatus();
  return UsageError(absl::StrCat(flag, " is ", *given, " but the input has ", in_file,
                                 ": leave the flag out or give the right input"));
}

absl::StatusOr<Problem> FromInput(const RunFlags& flags, const io::TensorFile& input) {
  ANNULUS_ASSIGN_OR_RETURN(const io::TensorView q, FindTensor(input, "q"));
  ANNULUS_ASSIGN_OR_RETURN(const io::TensorView k, FindTensor(input, "k"));
  for (const int64_t heads : {q.shape[2], k.shape[2], q.shape[3]}) {
    if (heads > (1 << 16)) {
      return UsageError(
          absl::StrCat("--input: ", heads, " heads or elements, expected at most ", 1 << 16));
    }
  }
  Problem problem;
  problem.batch = q.shape[0];
  problem.query_length = q.shape[1];
  problem.kv_length = k.shape[1];
  problem.query_heads = static_cast<int>(q.shape[2]);
  problem.kv_heads = static_cast<int>(k.shape[2]);
  problem.head_dim = static_cast<int>(q.shape[3]);
  problem.dtype = FromIo(q.dtype);
  ANNULUS_RETURN_IF_ERROR(MustAgree("--batch-size", flags.batch_size, problem.batch));
  ANNULUS_RETURN_IF_ERROR(MustAgree("--seq-length", flags.shape.seq_length, problem.query_length));
  ANNULUS_RETURN_IF_ERROR(
      MustAgree("--kv-seq-length", flags.shape.kv_seq_length, problem.kv_length));
  ANNULUS_RETURN_IF_ERROR(MustAgree("--num-heads", flags.num_heads, problem.query_heads));
  ANNULUS_RETURN_IF_ERROR(MustAgree("--num-kv-heads", flags.num_kv_heads, problem.kv_heads));
  ANNULUS_RETURN_IF_ERROR(MustAgree("--head-dim", flags.head_dim, problem.head_dim));
  if (!flags.dtype.empty()) {
    ANNULUS_ASSIGN_OR_RETURN(const client::DataType given, ParseDataType(flags.dtype));
    if (given != problem.dtype) {
      return UsageError(absl::StrCat("--dtype is ", DataTypeName(given), " but q of the input is ",
                                     DataTypeName(problem.dtype)));
    }
  }
  return problem;
}

absl::StatusOr<Problem> FromFlags(const RunFlags& flags) {
  Problem problem;
  problem.batch = flags.batch_size.value_or(problem.batch);
  problem.query_length = flags.shape.seq_length.value_or(problem.query_length);
  problem.kv_length = flags.shape.kv_seq_length.value_or(problem.query_length);
  problem.query_heads = flags.num_heads.value_or(problem.query_heads);
  problem.kv_heads = flags.num_kv_heads.value_or(problem.query_heads);
  problem.head_dim = flags.head_dim.value_or(problem.head_dim);
  ANNULUS_ASSIGN_OR_RETURN(problem.dtype, ParseDataType(flags.dtype.empty() ? "f32" : flags.dtype));
  return problem;
}

absl::Status CheckShape(const Problem& problem) {
  if (problem.batch < 1 || problem.query_length < 1 || problem.kv_length < 1 ||
      problem.kv_heads < 1) {
    return UsageError("batch, sequence lengths and heads must be at least 1");
  }
  if (problem.query_heads % problem.kv_heads != 0) {
    return UsageError(absl::StrCat("--num-heads ", problem.query_heads,
                                   " is not a multiple of --num-kv-heads ", problem.kv_heads));
  }
  if (problem.head_dim < 16 || problem.head_dim > 256 || problem.head_dim % 8 != 0) {
    return UsageError(
        absl::StrCat("--head-dim ", problem.head_dim, ": supported are 16 to 256 in steps of 8"));
  }
  return absl::OkStatus();
}

absl::Status CheckMemory(const Problem& problem, bool backward) {
  const double rows = static_cast<double>(problem.batch) *
                      (static_cast<double>(problem.query_length) * problem.query_heads * 2 +
                       static_cast<double>(problem.kv_length) * problem.kv_heads * 2);
  const double element = static_cast<double>(client::DataTypeBytes(problem.dtype));
  const double needed = rows * problem.head_dim * element * (backward ? 2 : 1);
  const double present =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  if (needed <= kMemoryShareMax * present) return absl::OkStatus();
  return UsageError(absl::StrCat("the tensors of --seq-length ", problem.query_length, " need ",
                                 FormatBytes(needed), ", this machine has ", FormatBytes(present)));
}

absl::Status CopyFrom(const io::TensorFile& input, const std::string& name,
                      const client::Tensor& to, const Problem& problem) {
  ANNULUS_ASSIGN_OR_RETURN(const io::TensorView from, FindTensor(input, name));
  const client::TensorView& view = to.view();
  const std::vector<int64_t> expected{view.batch, view.rows, view.heads, view.head_dim};
  if (from.shape != expected) {
    return UsageError(absl::StrCat("--input: ", name, " has shape ", io::ShapeText(from.shape),
                                   ", expected ", io::ShapeText(expected)));
  }
  if (FromIo(from.dtype) != problem.dtype) {
    return UsageError(absl::StrCat("--input: ", name, " is ", DataTypeName(FromIo(from.dtype)),
                                   ", expected ", DataTypeName(problem.dtype), " as q"));
  }
  std::memcpy(to.data(), from.bytes.data(), from.bytes.size());
  return absl::OkStatus();
}

absl::Status FillInput(const RunFlags& flags, const std::optional<io::TensorFile>& input,
                       const std::string& name, const client::Tensor& tensor,
                       const Problem& problem) {
  if (input) return CopyFrom(*input, name, tensor, problem);
  FillNormal(tensor.view(), SeedOf(flags), name);
  return absl::OkStatus();
}

io::TensorView ToIo(const client::Tensor& tensor) {
  const client::TensorView& view = tensor.view();
  io::TensorView out;
  out.dtype = ToIo(view.dtype);
  out.shape = {view.batch, view.rows, view.heads};
  if (view.head_dim != 0) out.shape.push_back(view.head_dim);
  out.bytes = {static_cast<const std::byte*>(view.data), view.bytes()};
  return out;
}

// A single .npy holds one tensor: the output o.
bool OnlyO(const std::string& path) {
  return path.size() > 4 && path.substr(path.size() - 4) == ".npy";
}

}  // namespace

absl::Status CheckProblem(const Problem& problem, bool backward) {
  ANNULUS_RETURN_IF_ERROR(CheckShape(problem));
  return CheckMemory(problem, backward);
}

bool DrawsGradient(const std::optional<io::TensorFile>& input) {
  return !input || !input->Has("do");
}

absl::StatusOr<Problem> ResolveProblem(const RunFlags& flags,
                                       const std::optional<io::TensorFile>& input) {
  ANNULUS_ASSIGN_OR_RETURN(const Problem problem,
                           input ? FromInput(flags, *input) : FromFlags(flags));
  const bool draws = !input || (flags.backward && DrawsGradient(input));
  if (flags.seed && !draws) {
    return UsageError(absl::StrCat("--seed ", *flags.seed,
                                   " would change nothing: --input has every tensor of this run"));
  }
  ANNULUS_RETURN_IF_ERROR(CheckProblem(problem, flags.backward));
  return problem;
}

absl::StatusOr<ProblemTensors> MakeTensors(client::Client* client, const Problem& problem,
                                           const RunFlags& flags,
                                           const std::optional<io::TensorFile>& input) {
  const auto queries = [&](int head_dim, client::DataType dtype) {
    return client->AllocateTensor(dtype, problem.batch, problem.query_length, problem.query_heads,
                                  head_dim);
  };
  const auto keys = [&] {
    return client->AllocateTensor(problem.dtype, problem.batch, problem.kv_length, problem.kv_heads,
                                  problem.head_dim);
  };
  ProblemTensors t;
  ANNULUS_ASSIGN_OR_RETURN(t.q, queries(problem.head_dim, problem.dtype));
  ANNULUS_ASSIGN_OR_RETURN(t.k, keys());
  ANNULUS_ASSIGN_OR_RETURN(t.v, keys());
  ANNULUS_ASSIGN_OR_RETURN(t.o, queries(problem.head_dim, problem.dtype));
  ANNULUS_ASSIGN_OR_RETURN(t.lse, queries(0, client::DataType::kF32));
  ANNULUS_RETURN_IF_ERROR(FillInput(flags, input, "q", t.q, problem));
  ANNULUS_RETURN_IF_ERROR(FillInput(flags, input, "k", t.k, problem));
  ANNULUS_RETURN_IF_ERROR(FillInput(flags, input, "v", t.v, problem));
  t.o_exact = t.o;
  if (!flags.backward) return t;
  if (problem.dtype != client::DataType::kF32) {
    ANNULUS_ASSIGN_OR_RETURN(t.o_exact, queries(problem.head_dim, client::DataType::kF32));
  }
  ANNULUS_ASSIGN_OR_RETURN(t.d_o, queries(problem.head_dim, problem.dtype));
  ANNULUS_ASSIGN_OR_RETURN(t.dq, queries(problem.head_dim, problem.dtype));
  ANNULUS_ASSIGN_OR_RETURN(t.dk, keys());
  ANNULUS_ASSIGN_OR_RETURN(t.dv, keys());
  t.d_o_generated = DrawsGradient(input);
  if (t.d_o_generated) {
    FillNormal(t.d_o.view(), SeedOf(flags), "do");
    return t;
  }
  ANNULUS_RETURN_IF_ERROR(CopyFrom(*input, "do", t.d_o, problem));
  return t;
}

void RoundOutput(const ProblemTensors& tensors) {
  const client::TensorView& to = tensors.o.view();
  if (tensors.o_exact.data() == to.data) return;
  kernels::StoreFromFloat(tensors.o_exact.as<float>(),
                          static_cast<int64_t>(to.bytes() / client::DataTypeBytes(to.dtype)),
                          ToKernels(to.dtype), to.data);
}

absl::Status WriteOutputs(const RunFlags& flags, const ProblemTensors& tensors) {
  if (flags.output.empty()) return absl::OkStatus();
  io::NamedTensors named{{"o", ToIo(tensors.o)}};
  if (!OnlyO(flags.output)) {
    named["lse"] = ToIo(tensors.lse);
    if (flags.backward) {
      named["dq"] = ToIo(tensors.dq);
      named["dk"] = ToIo(tensors.dk);
      named["dv"] = ToIo(tensors.dv);
      if (tensors.d_o_generated) named["do"] = ToIo(tensors.d_o);
    }
  }
  return io::WriteTensors(flags.output, named);
}

absl::Status CheckOutputs(const RunFlags& flags, const Problem& problem, bool d_o_generated) {
  if (flags.output.empty()) return absl::OkStatus();
  const io::Dtype dtype = ToIo(problem.dtype);
  std::map<std::string, io::Dtype> types{{"o", dtype}};
  if (OnlyO(flags.output)) {
    if (flags.backward) {
      return UsageError(
          "--output: one .npy file holds one tensor; with --backward give x.safetensors or a "
          "folder (ending in /)");
    }
  } else {
    types["lse"] = io::Dtype::kF32;
    if (flags.backward) {
      for (const char* name : {"dq", "dk", "dv"}) types[name] = dtype;
      if (d_o_generated) types["do"] = dtype;
    }
  }
  const absl::Status writable = io::CheckWritable(flags.output, types);
  return writable.ok() ? writable
                       : UsageError(absl::StrCat("--output: ", std::string(writable.message())));
}

}  // namespace annulus::cli
