# SPDX-License-Identifier: Apache-2.0
"""What the comparisons with other software share: flags, a virtual environment for that software, the check and the report. Standard library only."""
import argparse
import json
import os
import pathlib
import subprocess
import sys

from figures import DIRECTIONS, machine

BUILD = pathlib.Path(__file__).resolve().parents[2] / "build"
# Set on some machines to steer numpy's BLAS away from the processor it runs on: a comparison would not be one.
STEERING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
INSTALLED = """
import importlib.metadata, sys
for requirement in sys.argv[1:]:
    name, _, version = requirement.partition("==")
    assert version in ("", importlib.metadata.version(name).split("+")[0])
"""


def number(text):
    """argparse type: a number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def numbers(text):
    """argparse type: 2048,8192."""
    return [number(word) for word in text.split(",")]


def words_of(*allowed):
    """argparse type: some of `allowed`, by commas."""
    def parse(text):
        words = text.split(",")
        if not set(words) <= set(allowed):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(allowed)}, got {text!r}")
        return words
    return parse


def parser_of(description, venv_name):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cp-attention-mask-type", type=words_of("full", "causal"), default=["full", "causal"])
    parser.add_argument("--direction", type=words_of(*DIRECTIONS), default=DIRECTIONS)
    parser.add_argument("--rounds", type=number, default=5, help="interleaved timings of each side (default 5)")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--output", type=pathlib.Path, help="a file instead of the terminal")
    parser.add_argument("--venv", type=pathlib.Path, default=BUILD / venv_name, help=f"made if it is not there (default build/{venv_name})")
    return parser


def parse(parser):
    args = parser.parse_args()
    if args.output and not args.output.absolute().parent.is_dir():
        parser.error(f"--output: no folder {args.output.absolute().parent}")
    if args.venv.exists() and not (args.venv / "pyvenv.cfg").exists():
        parser.error(f"--venv: {args.venv} is there and is no virtual environment (it has no pyvenv.cfg)")
    return args


def enter_venv(folder, requirements):
    """Returns once this program runs in the virtual environment `folder` that has `requirements`; makes it and starts the program again for that."""
    if pathlib.Path(sys.prefix).resolve() == folder.resolve() and not any(name in os.environ for name in STEERING):
        return
    python = folder / "bin/python"
    if not (folder / "pyvenv.cfg").exists() and subprocess.run([sys.executable, "-m", "venv", folder], stdout=sys.stderr).returncode:
        sys.exit(f"no virtual environment could be made in {folder}")
    if subprocess.run([python, "-c", INSTALLED, *requirements], stderr=subprocess.DEVNULL).returncode:
        print(f"installing {' '.join(requirements)} into {folder}", file=sys.stderr, flush=True)
        if subprocess.run([python, "-m", "pip", "install", *requirements], stdout=sys.stderr).returncode:
            sys.exit(f"pip could not install {' '.join(requirements)} into {folder}")
    environment = {name: value for name, value in os.environ.items() if name not in STEERING}
    os.execve(python, [python, *sys.argv], environment)


def named(values, form=""):
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())


def require_agreement(shape, errors, limit):
    """`errors`: relative RMSE by tensor. A comparison of different results would be none: ends with exit code 1 beyond `limit`, or if one is NaN."""
    if not all(error <= limit for error in errors.values()):
        sys.exit(f"{named(shape)}: the results differ, relative RMSE {named(errors, '.1e')}, expected at most {limit:.0e}")


class Report:
    """Rows as they come and the whole at the end. `about`: what stands above the table, by name; `shape`: names of the columns that tell rows apart."""

    def __init__(self, args, other, about, shape):
        self.format, self.output, self.other, self.shape = args.format, args.output, other, shape
        self.about = {"machine": machine(), "rounds": args.rounds, **about}
        self.rows = []
        self.lines = [f"{name}: {value}" for name, value in self.about.items()]
        self.lines += [f"seconds: minimum, median; ratio: seconds of {other} / seconds of annulus, above 1 where annulus is faster: of the minima, median of the pairs", "",
                       "".join(f"{name:>10}" for name in shape) + "".join(f" | {side:>9} s {'median':>10} {'GFLOP/s':>8}" for side in ("annulus", other)) +
                       " | ratio   pairs | relative RMSE"]
        self._show(self.lines)

    def add(self, shape, errors, summary):
        self.rows.append({**shape, "relative_rmse": errors, **summary})
        sides = "".join(f" | {side['seconds_min']:11.4f} {side['seconds_median']:10.4f} {side['gflops']:8.1f}" for side in (summary["annulus"], summary[self.other]))
        self.lines.append("".join(f"{shape[name]:>10}" for name in self.shape) + sides +
                          f" | {summary['ratio_of_minima']:5.2f} {summary['median_ratio']:7.2f} | {named(errors, '.1e')}")
        self._show(self.lines[-1:])

    def _show(self, lines):
        """What the answer will not bring to the terminal is shown beside it: these programs run for long."""
        print("\n".join(lines), file=sys.stdout if self.format == "text" and not self.output else sys.stderr, flush=True)

    def end(self):
        if self.format == "json":
            text = json.dumps({"schema": "annulus.comparison.v1", "other": self.other, "about": self.about, "rows": self.rows}, indent=2)
        else:
            text = "\n".join(self.lines)
        if self.output:
            self.output.write_text(text + "\n")
        elif self.format == "json":
            print(text)
