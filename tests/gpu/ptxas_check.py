#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What ptxas says of the kernels: no spills, no stack, registers as declared here; of the tuned ones also that the compiler left
their matrix instructions asynchronous, and that they hold the instructions that they are written for. Needs nvcc, no GPU."""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# source -> architecture and, by a pattern of the kernel's mangled name, the registers that a thread may take. 256 threads of 128
# registers are two blocks a multiprocessor.
SOURCES = {
    "kernels/cuda/portable/kernels.cu": ("90", {
        "AttendKernel": 128, "AttendMatrixKernel": 168, "QueryGradientsKernel": 128, "KeyGradientsKernel": 168, "ResetKernel": 64, "RowDotsKernel": 64,
        "MergeKernel": 64, "ConvertKernel": 64, "AccumulateKernel": 64, "MergePartialKernel": 64, "BackwardInputsKernel": 64,
        "AddRowsKernel": 64}),
    # Of setmaxnreg ptxas tells the registers at entry: the register file over the threads of a block.
    "kernels/cuda/sm90/kernels.cu": ("90a", {
        r"AttendHopperKernel\w*ELi64E": 65536 // 512, r"AttendHopperKernel\w*ELi128E": 65536 // 384 // 8 * 8,
        "BackwardHopperKernel": 65536 // 384 // 8 * 8}),
}
# What every kernel for 9.0 consists of, and some of them besides.
HOPPER = ("wgmma.mma_async", "cp.async.bulk.tensor", "mbarrier", "setmaxnreg")
BESIDES = {"BackwardHopperKernel": ("cp.reduce.async.bulk",)}
ENTRY = re.compile(r"Compiling entry function '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def report(nvcc, source, arch):
    """{mangled name: (stack, spill stores, spill loads, registers)} and the compiler's whole output."""
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-std=c++20", "-O3", "--expt-relaxed-constexpr", f"-I{ROOT}", f"-gencode=arch=compute_{arch},code=sm_{arch}",
                   "-Xptxas=-v", "-cubin", "-o", f"{folder}/out.cubin", str(ROOT / source)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    text = run.stdout + run.stderr
    if run.returncode:
        sys.exit(text)
    kernels, name, spills = {}, None, None
    for line in text.splitlines():
        if match := ENTRY.search(line):
            name = match.group(1)
        elif match := SPILLS.search(line):
            spills = tuple(map(int, match.groups()))
        elif match := REGISTERS.search(line):
            kernels[name] = (*spills, int(match.group(1)))
    return kernels, text


def offences(kernels, text, declared):
    for name in declared:
        if not any(re.search(name, kernel) for kernel in kernels):
            yield f"{name}: declared, not compiled"
    for kernel, (stack, stores, loads, registers) in kernels.items():
        limits = [limit for name, limit in declared.items() if re.search(name, kernel)]
        if not limits:
            yield f"{kernel}: not declared in {pathlib.Path(__file__).name}"
        elif registers > limits[0]:
            yield f"{kernel}: {registers} registers, declared {limits[0]}"
        if stack or stores or loads:
            yield f"{kernel}: {stack} bytes of stack, {stores} + {loads} bytes spilled"
    yield from (line for line in text.splitlines() if "warning" in line.lower() or "Performance Loss" in line)


def missing_instructions(nvcc, source, arch, kernels):
    """What kernels for 9.0 lack of what they are written for."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([nvcc, "-std=c++20", "-O3", "--expt-relaxed-constexpr", f"-I{ROOT}", f"-gencode=arch=compute_{arch},code=compute_{arch}",
                        "-ptx", "-o", f"{folder}/out.ptx", str(ROOT / source)], check=True)
        entries = (pathlib.Path(folder) / "out.ptx").read_text().split(".entry ")[1:]
    bodies = {entry.split("(")[0].strip(): entry for entry in entries}
    for kernel in kernels:
        besides = [name for pattern, names in BESIDES.items() if re.search(pattern, kernel) for name in names]
        yield from (f"{kernel}: no {name}" for name in (*HOPPER, *besides) if name not in bodies.get(kernel, ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvcc", default="nvcc")
    args = parser.parse_args()
    found, count = [], 0
    for source, (arch, declared) in SOURCES.items():
        kernels, text = report(args.nvcc, source, arch)
        count += len(kernels)
        for kernel, figures in sorted(kernels.items()):
            print(f"sm_{arch} {kernel}: {figures[3]} registers")
        found += [f"{source}: {offence}" for offence in offences(kernels, text, declared)]
        if arch == "90a":
            found += [f"{source}: {offence}" for offence in missing_instructions(args.nvcc, source, arch, kernels)]
    print("\n".join(found))
    print(f"{count} kernels, {len(found)} offences")
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main())
