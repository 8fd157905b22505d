"""Check and time every kernel on a GPU in one call, within minutes: ``python benchmarks/gpu.py``.

Checks: each kernel of a model, to its double backward, against plain float64 operations; the same bits when run twice,
on another stream and from a CUDA graph; the tests marked ``gpu``; compute-sanitizer's memory and race checkers. Times:
each kernel beside the time that its bytes take at the bandwidth measured for a copy, and the whole track (scalars, and
the gradients that forces need) beside plain torch operations and, where they are installed, nequip-allegro's Triton
kernel and cuEquivariance. Results go to ``$OUT`` or ``benchmarks/results`` after every stage; a stage that does not fit
into ``--minutes`` is recorded as stopped.

``--device cpu --small`` runs the same code, in small, on a machine without a GPU; its times mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import gpu_kernels as stages
import torch
from bench_kernels import RESULTS

from asenequip.kernels import cuda, native

ROOT = Path(__file__).parents[1]


@dataclass
class Report:
    """What was found so far, in the file from the first stage on."""

    path: Path
    minutes: float
    start: float = field(default_factory=time.monotonic)
    found: dict[str, object] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self.start)

    def add(self, name: str, value: object) -> None:
        self.found[name] = value
        self.found["seconds"] = round(time.monotonic() - self.start, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"-- {name}, after {self.found['seconds']} s\n")
        sys.stdout.flush()

    def add_rows(self, name: str, rows: Iterable[dict[str, object]], line: Callable[[dict], str]) -> list[dict]:
        """Rows as far as the time allows; ``line`` gives what is printed of each, nothing where it is empty."""
        kept, stopped = [], False
        for row in rows:
            kept.append(row)
            if line(row):
                sys.stdout.write(line(row) + "\n")
            if self.seconds_left < 0:
                stopped = True
                break
        self.add(name, {"stopped_early": stopped, "rows": kept})
        return kept


def versions(device: str) -> dict[str, object]:
    packages = {}
    wanted = ("torch", "cupy", "triton", "nvidia-cuda", "e3nn", "asenequip", "nequip", "cuequivariance")
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name and name.lower().startswith(wanted):
            packages[name] = distribution.version
    found = {"python": platform.python_version(), "packages": packages, "device": device}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        capability = f"{properties.major}.{properties.minor}"
        found |= {"gpu": properties.name, "capability": capability, "memory_bytes": properties.total_memory}
        found |= {"torch_cuda": torch.version.cuda}
    return found


def why_not(device: str) -> str | None:
    """Why nothing can be measured here, or None."""
    if device == "cpu":
        return None if native.available() else "No C++ compiler was found, so there are no kernels to run on a CPU."
    if not torch.cuda.is_available():
        return "torch finds no CUDA device, so nothing was checked or timed. Run this on a machine with an NVIDIA GPU."
    return cuda.problem()


def subprocess_result(command: list[str], seconds: float, **environment: str) -> dict[str, object]:
    """Exit status and last lines of a program, or that it took too long."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=max(1.0, seconds),
        )
    except subprocess.TimeoutExpired:
        return {"ran": False, "reason": f"stopped after {seconds:.0f} s"}
    return {"ran": True, "passed": done.returncode == 0, "tail": done.stdout[-2000:].splitlines()}


def gpu_tests(seconds: float) -> dict[str, object]:
    """The tests marked gpu, in a process of their own; one that finds no GPU fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu and not slow", "--confcutdir", "tests/kernels"]
    return subprocess_result([*command, "tests/kernels"], seconds, ASENEQUIP_REQUIRE_GPU="1")


def sanitize(tool_name: str, seconds: float) -> dict[str, object]:
    """The checks of l_max 1 under one of compute-sanitizer's tools."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return {"ran": False, "reason": "compute-sanitizer is not on the PATH"}
    command = [program, "--tool", tool_name, "--error-exitcode", "9", sys.executable, __file__]
    return subprocess_result([*command, "--check-only", "--small", "--l-max", "1", "--channels", "33", "300"], seconds)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    made.add_argument("--small", action="store_true", help="one model, first derivatives, few edges")
    made.add_argument("--l-max", type=int, nargs="+")
    made.add_argument("--channels", type=int, nargs="+", help="of the checks")
    made.add_argument("--edges", type=int, nargs="+")
    made.add_argument("--minutes", type=float, default=8.0)
    made.add_argument("--check-only", action="store_true", help="the checks of the kernels, nothing written")
    made.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", RESULTS)) / "gpu.json")
    return made


def describe(row: dict) -> str:
    return (
        f"{row['kernel']:<28} E {row['edges']:>8} l_max {row['l_max']} U {row['channels']:>3}  {row['ms']:8.4f} ms"
        f"  floor {row['floor_ms']:8.4f} ms  {100 * row['of_floor_speed']:5.1f} %"
    )


def failures(row: dict) -> str:
    return "" if row["passed"] else f"FAILED {row}"


def check_only(machine: stages.Machine, l_maxima: list[int], channels: list[int], small: bool) -> int:
    rows = list(stages.check(machine, l_maxima, channels, small))
    bad = [row for row in rows if not row["passed"]]
    sys.stdout.write("".join(f"FAILED {row}\n" for row in bad) + f"{len(rows) - len(bad)} of {len(rows)} passed\n")
    return int(bool(bad))


def tests_and_sanitizer(report: Report) -> bool:
    """Whether the tests marked gpu and the sanitizer's tools found nothing; what did not run counts as nothing."""
    tests = gpu_tests(min(180.0, report.seconds_left))
    report.add("tests", tests)
    tools = {name: sanitize(name, min(90.0, report.seconds_left)) for name in ("memcheck", "racecheck")}
    report.add("sanitizer", tools)
    return all(found.get("passed", True) for found in (tests, *tools.values()))


def main() -> int:
    chosen = parser().parse_args()
    problem_here = why_not(chosen.device)
    if problem_here is not None:
        sys.stderr.write(problem_here + "\n")
        return 1
    small, machine = chosen.small, stages.Machine(chosen.device)
    l_maxima = chosen.l_max or ([1] if small else [1, 2, 3])
    channels = chosen.channels or ([1, 33] if small else [1, 32, 100, 300])
    edges = chosen.edges or ([400] if small else [100_000, 1_000_000])
    if chosen.check_only:
        return check_only(machine, l_maxima, channels, small)
    report = Report(chosen.output, chosen.minutes)
    report.add("versions", versions(chosen.device))
    types = (torch.float64,) if small else tuple(stages.TOLERANCES)
    kernels = list(dict.fromkeys((p, t) for _, _, _, p in stages.matrix(l_maxima, small) for t in types))
    seconds = stages.compile_all(kernels, chosen.device)
    report.add("compiled", {"kernels": len(kernels), "seconds": seconds, "cores": os.cpu_count()})
    checked = report.add_rows("checks", stages.check(machine, l_maxima, channels, small), failures)
    sound = bool(checked) and all(row["passed"] for row in checked)
    bandwidth = stages.copy_bandwidth(machine, 2**20 if small else 2**28)
    report.add("copy_bytes_per_second", bandwidth)
    for k, count in enumerate(edges):
        tracks = (stages.time_track(machine, bandwidth, count, l_max) for l_max in l_maxima)
        report.add_rows(f"track_{count}", tracks, str)
        rows = stages.time_primitives(machine, bandwidth, count, l_maxima, [32] if small else [32, 64, 128], small)
        report.add_rows(f"primitives_{count}", rows, describe)
        if k == 0 and not small and chosen.device == "cuda":
            sound = tests_and_sanitizer(report) and sound
    return int(not sound)


if __name__ == "__main__":
    raise SystemExit(main())
