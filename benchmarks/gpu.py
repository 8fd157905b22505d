"""Check and time everything on a GPU in one call, within minutes: ``python benchmarks/gpu.py``.

Stages, in order, each with a time of its own: ``checks`` of each kernel, to its double backward, against plain float64
operations, and of the same bits when run twice, on another stream and from a CUDA graph; ``track``: scalars and the
gradients that forces need, beside plain torch operations and, where they are installed, nequip-allegro's Triton kernel
and cuEquivariance; ``device``: whole steps from 64 atoms up, the network and its compiled graph, captured and not
(`bench_device.py`); ``tests`` marked gpu; ``precision``: errors of each precision (`bench_precision.py`); ``peer``: the
ASE calculators beside nequip-allegro's compiled modes, if it is installed (`bench_gpu_peer.py`); ``primitives``: each
kernel beside the time that its bytes take at the bandwidth measured for a copy; ``sanitizer``: compute-sanitizer's
memory and race checkers; ``large``: ``track`` and ``primitives`` on ten times as many edges.

Results go to ``$OUT`` or ``benchmarks/results`` as they are found, in ``gpu.json`` and in the files of the other
programs. A stage that takes too long is stopped, one that does not fit into ``--minutes`` is not begun, and both are
recorded; ``--stages`` names those to run, for a second call. ``--device cpu --small`` runs the same code, in small, on
a machine without a GPU; its times mean nothing.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import math
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
    """What was found so far, in the file from the first row on."""

    path: Path
    minutes: float
    start: float = field(default_factory=time.monotonic)
    found: dict[str, object] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self.start)

    def save(self, name: str, value: object) -> None:
        self.found[name] = value
        self.found["seconds"] = round(time.monotonic() - self.start, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.path)

    def add(self, name: str, value: object) -> None:
        self.save(name, value)
        sys.stdout.write(f"-- {name}, after {self.found['seconds']} s\n")
        sys.stdout.flush()

    def add_rows(
        self, name: str, rows: Iterable[dict[str, object]], line: Callable[[dict], str], seconds: float
    ) -> list[dict]:
        """Rows as far as the time allows; ``line`` gives what is printed of each, nothing where it is empty."""
        kept: list[dict] = []
        end = saved = time.monotonic()
        end += min(seconds, self.seconds_left)
        for row in rows:
            kept.append(row)
            if line(row):
                sys.stdout.write(line(row) + "\n")
            if time.monotonic() > end:
                self.add(name, {"stopped_early": True, "rows": kept})
                return kept
            if time.monotonic() > saved + 5.0:
                self.save(name, {"stopped_early": True, "rows": kept})
                saved = time.monotonic()
        self.add(name, {"stopped_early": False, "rows": kept})
        return kept


def versions(device: str) -> dict[str, object]:
    packages = {}
    wanted = ("torch", "cupy", "triton", "nvidia-cuda", "e3nn", "asenequip", "nequip", "cuequivariance")
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name and name.lower().startswith(wanted):
            packages[name] = distribution.version
    found: dict[str, object] = {"python": platform.python_version(), "packages": packages, "device": device}
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


def gpu_tests(seconds: float, *where: str) -> dict[str, object]:
    """Tests marked gpu, in a process of their own; one that finds no GPU fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu and not slow", *where]
    return subprocess_result(command, seconds, ASENEQUIP_REQUIRE_GPU="1")


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
    made.add_argument("--minutes", type=float, default=9.0)
    made.add_argument("--stages", nargs="+", default=list(SECONDS), choices=list(SECONDS))
    made.add_argument("--models", type=Path, help="folder with the models of the peer stage, see bench_gpu_peer.py")
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


@dataclass(frozen=True)
class Run:
    """One call of this program."""

    report: Report
    machine: stages.Machine
    small: bool
    l_maxima: list[int]
    channels: list[int]
    edges: list[int]
    models: Path | None = None

    @functools.cached_property
    def bandwidth(self) -> float:
        found = stages.copy_bandwidth(self.machine, 2**20 if self.small else 2**28)
        self.report.add("copy_bytes_per_second", found)
        return found

    def checks(self, seconds: float) -> bool:
        types = (torch.float64,) if self.small else tuple(stages.TOLERANCES)
        kernels = list(dict.fromkeys((p, t) for _, _, _, p in stages.matrix(self.l_maxima, self.small) for t in types))
        taken = stages.compile_all(kernels, self.machine.device)
        self.report.add("compiled", {"kernels": len(kernels), "seconds": taken, "cores": os.cpu_count()})
        rows = stages.check(self.machine, self.l_maxima, self.channels, self.small)
        checked = self.report.add_rows("checks", rows, failures, seconds)
        return bool(checked) and all(row["passed"] for row in checked)

    def track(self, seconds: float, size: int = 0) -> bool:
        edges = self.edges[size]
        rows = (stages.time_track(self.machine, self.bandwidth, edges, l_max) for l_max in self.l_maxima)
        self.report.add_rows(f"track_{edges}", rows, str, seconds)
        return True

    def primitives(self, seconds: float, size: int = 0) -> bool:
        edges, channels = self.edges[size], [32] if self.small else [32, 64, 128]
        rows = stages.time_primitives(self.machine, self.bandwidth, edges, self.l_maxima, channels, self.small)
        self.report.add_rows(f"primitives_{edges}", rows, describe, seconds)
        return True

    def large(self, seconds: float) -> bool:
        return all(
            self.track(seconds / 2, size) and self.primitives(seconds / 2, size) for size in range(1, len(self.edges))
        )

    def device(self, seconds: float) -> bool:
        small = ["--sizes", "32", "--seconds", "0.1"] if self.small else ["--seconds", "2"]
        return self.program("device", ["bench_device.py", *small], seconds)

    def precision(self, seconds: float) -> bool:
        small = ["--l-max", "1", "--seconds", "0.1"] if self.small else ["--seconds", "3"]
        return self.program("precision", ["bench_precision.py", *small], seconds)

    def peer(self, seconds: float) -> bool:
        small = ["--atoms", "32", "--seconds", "0.1"] if self.small else []
        models = ["--models", str(self.models)] if self.models else []
        return self.program("peer", ["bench_gpu_peer.py", *small, *models], seconds)

    def tests(self, seconds: float) -> bool:
        if self.machine.device == "cpu":
            return True
        # the kernels need torch and CuPy alone: their tests run without those of the rest
        kernels = gpu_tests(seconds / 2, "--confcutdir", "tests/kernels", "tests/kernels")
        steps = gpu_tests(seconds / 2, "tests/test_resident.py", "tests/test_compiledgraph.py")
        return self.keep("tests", kernels) and self.keep("tests_of_steps", steps)

    def sanitizer(self, seconds: float) -> bool:
        tools = ("memcheck", "racecheck") if self.machine.device == "cuda" else ()
        found = [self.keep(name, sanitize(name, seconds / 2)) for name in tools]
        return all(found)

    def program(self, name: str, command: list[str], seconds: float) -> bool:
        """Another benchmark, which writes its own file as it goes."""
        device = self.machine.device
        output = self.report.path.with_name(f"gpu_{name}.json")
        more = [sys.executable, f"benchmarks/{command[0]}", *command[1:], "--device", device, "--output", str(output)]
        found = subprocess_result(more, seconds)
        return self.keep(name, {**found, "file": output.name if output.is_file() else None})

    def keep(self, name: str, found: dict[str, object]) -> bool:
        self.report.add(name, found)
        return bool(found.get("passed", True))


SECONDS = {
    "checks": 60.0,
    "track": 40.0,
    "device": 150.0,
    "tests": 120.0,
    "precision": 60.0,
    "peer": 240.0,
    "primitives": 40.0,
    "sanitizer": 90.0,
    "large": 90.0,
}
"""The longest that each stage may take on a GPU; they run in this order."""


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
    run, sound = Run(report, machine, small, l_maxima, channels, edges, chosen.models), True
    for name in SECONDS:
        if name not in chosen.stages:
            continue
        if report.seconds_left < 0:
            report.add(name, {"ran": False, "reason": "no time was left"})
            continue
        try:
            limit = SECONDS[name] if chosen.device == "cuda" else math.inf
            sound = getattr(run, name)(min(limit, report.seconds_left)) and sound
        except Exception as failure:  # noqa: BLE001  a stage that fails is a result, and the next one may not
            sound = False
            report.add(f"{name}_failure", f"{type(failure).__name__}: {failure}"[:2000])
    return int(not sound)


if __name__ == "__main__":
    raise SystemExit(main())
