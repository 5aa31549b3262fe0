#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs programs on an emulated processor: for instruction sets, AVX-512 above all, that this machine's processor lacks.

    run_in_bochs.py [--cpu MODEL] [--folder build/emulated] 'PROGRAM ARGUMENT...' ...

Boots a Debian kernel in Bochs from a CD image with the programs, the libraries `ldd` names for them, and busybox; each
command line runs in turn, its output is copied to stdout as it appears, and the exit code is that of the first that
failed. A program sees nothing else of this machine's files. One emulated core, some hundred times slower than a real one;
half a minute to boot.
Models with AVX-512 in Bochs 2.7: corei7_skylake_x; corei3_cnl, corei7_icelake_u and tigerlake, which add to it; AVX512_BF16: none.
A gtest program that runs no test at all counts as failed. Exit code 125: the emulator failed, or the time limit passed.
"""
import argparse
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tty

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARK = "run_in_bochs:"
EMULATOR_FAILED = 125
# What Highway asks of a processor before it chooses AVX3.
AVX512 = ("avx512f", "avx512cd", "avx512dq", "avx512bw", "avx512vl")

# The ips line sets how fast virtual time passes: fewer timer interrupts per instruction than the default's.
BOCHSRC = """\
display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model={cpu}, count=1, ips=100000000, reset_on_triple_fault=0
memory: guest={memory}, host={memory}
ata0-master: type=cdrom, path={folder}/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={folder}/serial.txt
clock: sync=none
mouse: enabled=0
log: {folder}/bochs.log
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
"""
# clearcpuid: the sizes Bochs gives for compacted XSAVE areas are wrong, and Linux then uses no vector state at all.
ISOLINUX = """\
DEFAULT linux
PROMPT 0
LABEL linux
  KERNEL /vmlinuz
  APPEND initrd=/initrd console=ttyS0,115200 quiet nokaslr clearcpuid=xsaves,xsavec mitigations=off nosmp tsc=reliable lpj=400000 random.trust_cpu=on panic=-1
"""
INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t tmpfs tmp /tmp
exec </dev/ttyS0 >/dev/ttyS0 2>&1
export HOME=/tmp TERM=dumb
/bin/busybox stty -opost -echo
echo "{mark} cpu $(/bin/busybox grep -m1 '^flags' /proc/cpuinfo)"
{commands}
echo "{mark} end"
/bin/busybox sleep 60  # the serial port still sends; the emulator is stopped when the line above has arrived
/bin/busybox poweroff -f
"""


def unpack(folder, package):
    """Downloads a Debian package and unpacks it, without installing it; returns the folder it was unpacked to."""
    goal = folder / "packages" / package
    if not goal.exists():
        partial = goal.with_name(package + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        subprocess.run(["apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", package], cwd=partial, check=True)
        subprocess.run(["dpkg-deb", "-x", *partial.glob("*.deb"), partial], check=True)
        partial.rename(goal)
    return goal


def newest_kernel_package():
    depends = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True, check=True).stdout
    return re.search(r"Depends: (linux-image-\S+)", depends).group(1)


def files_of(program):
    """A program and its libraries, as absolute paths."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    if "not found" in listed:
        sys.exit(f"{program}: a library is missing:\n{listed}")
    return {str(program), *re.findall(r"(/\S+) \(0x", listed)}


def make_initrd(folder, busybox, commands):
    tree = folder / "initrd"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("dev", "proc", "tmp", "bin"):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    lines = []
    for number, (program, *arguments) in enumerate(commands):
        program = pathlib.Path(program).resolve()
        for file in files_of(program):
            copy = tree / file.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
            subprocess.run(["strip", "--strip-debug", copy], check=False, stderr=subprocess.DEVNULL)
        lines += [shlex.join([str(program), *arguments]), f'echo "{MARK} exit {number} $?"']
    init = tree / "init"
    init.write_text(INIT.format(mark=MARK, commands="\n".join(lines)))
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with open(folder / "cd/initrd", "wb") as out:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=tree, input=names.encode(), stdout=out, check=True)


def make_image(folder, commands):
    shutil.rmtree(folder / "cd", ignore_errors=True)
    (folder / "cd/isolinux").mkdir(parents=True)
    kernel = next(unpack(folder, newest_kernel_package()).glob("boot/vmlinuz-*"))
    busybox = unpack(folder, "busybox-static") / "bin/busybox"
    shutil.copy(kernel, folder / "cd/vmlinuz")
    shutil.copy("/usr/lib/ISOLINUX/isolinux.bin", folder / "cd/isolinux")
    shutil.copy("/usr/lib/syslinux/modules/bios/ldlinux.c32", folder / "cd/isolinux")
    (folder / "cd/isolinux/isolinux.cfg").write_text(ISOLINUX)
    make_initrd(folder, busybox, commands)
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", folder / "boot.iso", "-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat",
                    "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", folder / "cd"], check=True, stderr=subprocess.DEVNULL)


def drain(said, copy):
    """Bochs draws its screen on a terminal it opens itself, whose name it says; it would wait for ever if nobody read that."""
    for line in said:
        copy.write(line)
        screen = re.search(rb'connected to screen "(.*)"', line)
        if screen:
            descriptor = os.open(screen.group(1), os.O_RDWR | os.O_NOCTTY)
            tty.setraw(descriptor)
            threading.Thread(target=read_for_ever, args=(descriptor,), daemon=True).start()


def read_for_ever(descriptor):
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:
        pass  # Bochs has ended
    os.close(descriptor)


def boot(folder, options):
    """Lines of the serial port until the guest has ended; the last is None if it never did."""
    (folder / "debugger").write_text("continue\n")  # Debian's Bochs starts in its debugger
    (folder / "bochsrc").write_text(BOCHSRC.format(cpu=options.cpu, memory=options.memory, folder=folder))
    serial = folder / "serial.txt"
    serial.write_bytes(b"")
    emulator = subprocess.Popen(["bochs", "-f", folder / "bochsrc", "-rc", folder / "debugger"], cwd=folder, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "TERM": "xterm"}, start_new_session=True)
    reader = threading.Thread(target=drain, args=(emulator.stdout, open(folder / "debugger.txt", "wb", buffering=0)), daemon=True)
    reader.start()
    deadline = time.monotonic() + options.timeout
    try:
        with open(serial, encoding="utf-8", errors="replace", newline="\n") as lines:
            partial = ""
            while True:
                ended = emulator.poll() is not None or time.monotonic() > deadline
                for piece in iter(lines.readline, ""):
                    partial += piece
                    if partial.endswith("\n"):
                        line, partial = partial.rstrip("\r\n"), ""
                        yield line
                        if line == f"{MARK} end":
                            return
                if ended:
                    code = emulator.poll()
                    print(f"{MARK}", f"the time limit of {options.timeout} s has passed" if code is None else f"Bochs ended with {code}")
                    yield None
                    return
                time.sleep(0.2)
    finally:
        emulator.kill()
        emulator.wait()


def run(folder, options, commands):
    began = time.monotonic()
    codes, booted, no_tests = [], False, False

    def say(text):
        print(f"{MARK} {text} after {time.monotonic() - began:.0f} s", flush=True)

    for line in boot(folder, options):
        if line is None:
            print(f"{MARK} the guest did not come to its end; see serial.txt, bochs.log and debugger.txt in {folder}")
            return EMULATOR_FAILED
        if line.startswith(f"{MARK} cpu "):
            flags, booted = line.split(), True
            lacking = [flag for flag in AVX512 if flag not in flags]
            if lacking and not options.any_cpu:
                print(f"{MARK} {options.cpu} lacks {' '.join(lacking)}")
                return EMULATOR_FAILED
            say(f"{options.cpu} with {' '.join(flag for flag in flags if flag.startswith('avx'))}: booted")
        elif line.startswith(f"{MARK} exit "):
            code = int(line.split()[3])
            if no_tests and code == 0:
                code = 1
                print(f"{MARK} no test ran")
            say(f"{shlex.join(commands[len(codes)])}: exit code {code}")
            codes.append(code)
            no_tests = False
        elif booted and line != f"{MARK} end":
            no_tests = no_tests or line.startswith("[==========] Running 0 tests")
            print(line, flush=True)
    return next((code for code in codes if code), 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", metavar="COMMAND", help="a program and its arguments, in one argument")
    parser.add_argument("--cpu", default="corei7_skylake_x", help="a model of `bochs -help cpu` (default: %(default)s)")
    parser.add_argument("--any-cpu", action="store_true", help="also run on a model without AVX-512")
    parser.add_argument("--memory", type=int, default=512, help="MiB (default: %(default)s)")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds for everything (default: %(default)s)")
    parser.add_argument("--folder", default=ROOT / "build/emulated", type=pathlib.Path, help="for the image and the logs")
    options = parser.parse_args()
    subprocess.run([ROOT / "tools/install_packages.sh", ROOT / "tools/packages-emulated.txt"], check=True)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EMULATOR_FAILED))  # and the emulator is stopped on the way out
    commands = [shlex.split(command) for command in options.commands]
    make_image(folder, commands)
    return run(folder, options, commands)


if __name__ == "__main__":
    sys.exit(main())
