"""Check and time every kernel on a GPU in one call: ``python benchmarks/gpu.py``.

Checks: each kernel of a model, to its double backward, against plain float64 operations; the same bits when run twice,
on another stream and from a CUDA graph. Times: each primitive beside the time that its bytes take at the bandwidth
measured for a copy, and the whole track (scalars, and the gradients that forces need) beside plain torch operations.
``--sanitize`` repeats the checks under compute-sanitizer. Everything is written to ``benchmarks/results/gpu.json``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from bench_kernels import RESULTS, collapsed, problem
from torch import Tensor

from asenequip.kernels import cuda, nvrtc, ops
from asenequip.kernels.evaluate import evaluate
from asenequip.kernels.library import layout
from asenequip.kernels.polynomial import EdgeForm, Polynomial

NEIGHBORS = 40
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5}
"""Relative to the largest entry of an output, against float64."""
Case = tuple[list[Tensor], Tensor | None]


def operands(
    polynomial: Polynomial, counts: Tensor, channels: int, dtype: torch.dtype, seed: int, device: str = "cpu"
) -> Case:
    """Random operands of a kernel for atoms with the given numbers of neighbours."""
    generator = torch.Generator(device).manual_seed(seed)
    atoms, form = counts.numel(), polynomial.form
    if isinstance(form, EdgeForm):
        edges, size = int(counts.sum()), len(form.irrep)
        shapes = [(edges, channels), (edges, form.num_weights, channels), (edges, size), (atoms, size, channels)]
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(device)
    else:
        shapes = [(form.sizes[0], channels), *((atoms, size, channels) for size in form.sizes[1:])]
        ptr = None
    draw = [torch.randn(shapes[k], generator=generator, dtype=dtype, device=device) for k in polynomial.operands]
    return draw, ptr


def run(polynomial: Polynomial, case: Case) -> list[Tensor]:
    return torch.ops.asenequip.polynomial(case[0], case[1], polynomial.text)


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    errors = [(a.cpu().double() - b).abs().max() / b.abs().max().clamp(min=1e-30) for a, b in pairs]
    return float(torch.stack(errors).max())  # NaN if any entry is


def check_kernel(polynomial: Polynomial, channels: int, dtype: torch.dtype) -> dict[str, object]:
    """One kernel on ragged atoms: error against float64, repeatability, another stream, a CUDA graph."""
    counts = torch.tensor([0, 9, 1, 70, 0, 33])
    exact, ptr = operands(polynomial, counts, channels, torch.float64, seed=channels)
    case = ([t.to("cuda", dtype) for t in exact], None if ptr is None else ptr.cuda())
    rounded = [t.cpu().double() for t in case[0]]
    first = run(polynomial, case)
    again = run(polynomial, case)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        aside = run(polynomial, case)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(polynomial, case)
    graph.replay()
    torch.cuda.synchronize()
    worst = error(first, evaluate(polynomial, rounded, ptr))
    same = all(torch.equal(a, b) for other in (again, aside, captured) for a, b in zip(first, other, strict=True))
    return {"error": worst, "same_bits": same, "passed": same and worst < TOLERANCES[dtype]}


def check(l_maxima: list[int]) -> list[dict[str, object]]:
    """Every kernel of models with these l_max; prints what fails."""
    # Outputs start as NaN here, so that an entry which a kernel forgets is seen.
    torch.use_deterministic_algorithms(True)
    rows = []
    for l_max in l_maxima:
        for shared in (False, True):
            for name, polynomial in nvrtc.model_kernels(l_max, 2, False, shared).items():
                for dtype in TOLERANCES:
                    for channels in (1, 32, 64, 100, 300):
                        found = check_kernel(polynomial, channels, dtype)
                        label = {"l_max": l_max, "shared": shared, "kernel": name, "dtype": str(dtype)}
                        rows.append({**label, "channels": channels, **found})
                        if not found["passed"]:
                            sys.stdout.write(f"FAILED {rows[-1]}\n")
    torch.use_deterministic_algorithms(False)
    passed = sum(bool(row["passed"]) for row in rows)
    sys.stdout.write(f"checks: {passed} of {len(rows)} passed\n")
    return rows


def milliseconds(step: Callable[[], object], repeats: int = 30) -> float:
    """Shortest time of one call on the GPU, between events."""
    for _ in range(3):
        step()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        step()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return min(times)


def copy_bandwidth() -> float:
    """Bytes per second of a device copy of 1 GiB, reading and writing counted."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / (1e-3 * milliseconds(lambda: target.copy_(source)))


def time_primitives(bandwidth: float, edges: list[int], l_maxima: list[int]) -> list[dict[str, object]]:
    """Each kernel's time and its floor: all operands read once and all outputs written once."""
    rows = []
    for count in edges:
        counts = torch.full((count // NEIGHBORS,), NEIGHBORS)
        for l_max in l_maxima:
            for channels in (32, 64, 128):
                for name, polynomial in nvrtc.model_kernels(l_max, 2, False, False).items():
                    case = operands(polynomial, counts, channels, torch.float32, 0, "cuda")
                    own = layout(polynomial.text)
                    moved = [*case[0], *own.empty(own.shapes(*case), case[0])]
                    size = sum(t.numel() * t.element_size() for t in moved)
                    del moved
                    # Enough work for the launch to be hidden is queued by measuring inside a CUDA graph.
                    graph = torch.cuda.CUDAGraph()
                    run(polynomial, case)
                    with torch.cuda.graph(graph):
                        run(polynomial, case)
                    time, floor = milliseconds(graph.replay), 1e3 * size / bandwidth
                    row = {"kernel": name, "edges": count, "l_max": l_max, "channels": channels}
                    rows.append({**row, "ms": time, "floor_ms": floor, "of_floor_speed": floor / time})
                    sys.stdout.write(
                        f"{name:<28} E {count:>8} l_max {l_max} U {channels:>3}  {time:8.4f} ms  floor {floor:8.4f} ms"
                        f"  {100 * floor / time:5.1f} %\n"
                    )
    return rows


def time_track(edges: list[int], l_maxima: list[int]) -> list[dict[str, object]]:
    """Scalars and the gradients that forces need, U = 64: kernels (captured and not) and plain torch operations."""
    rows = []
    for count in edges:
        for l_max in l_maxima:
            x = problem(l_max, 64, count // NEIGHBORS, "cuda")

            def step(x=x) -> tuple[Tensor, ...]:
                return torch.autograd.grad(torch.stack(collapsed(x)).sum(), x.per_edge)

            row: dict[str, object] = {"edges": count, "l_max": l_max, "channels": 64}
            with ops.use_backend("native"):
                row["kernels_ms"] = milliseconds(step)
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    step()
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    step()
                row["kernels_in_graph_ms"] = milliseconds(graph.replay)
                del graph
            with ops.use_backend("plain"):
                try:
                    row["plain_ms"] = milliseconds(step, repeats=5)
                except torch.cuda.OutOfMemoryError:
                    row["plain_ms"] = None
            rows.append(row)
            sys.stdout.write(f"track {row}\n")
    return rows


def sanitize() -> dict[str, object]:
    """The checks under compute-sanitizer's memory checker, if it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"ran": False, "reason": "compute-sanitizer is not on the PATH"}
    command = [tool, "--error-exitcode", "9", sys.executable, __file__, "--check-only", "--l-max", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"ran": True, "clean": done.returncode == 0, "tail": done.stdout[-1000:]}


def versions() -> dict[str, object]:
    packages = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name and name.lower().startswith(("torch", "cupy", "nvidia-cuda", "e3nn", "asenequip")):
            packages[name] = distribution.version
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "torch_cuda": torch.version.cuda,
        "python": platform.python_version(),
        "packages": packages,
    }


def why_not() -> str | None:
    """Why nothing can be measured here, or None."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device, so nothing was checked or timed. Run this on a machine with an NVIDIA GPU."
    return cuda.problem()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--l-max", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--edges", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json")
    chosen = parser.parse_args()
    problem_here = why_not()
    if problem_here is not None:
        sys.stderr.write(problem_here + "\n")
        return 1
    checks = check(chosen.l_max)
    failed = not all(row["passed"] for row in checks)
    if chosen.check_only:
        return int(failed)
    bandwidth = copy_bandwidth()
    sys.stdout.write(f"copy: {bandwidth / 1e12:.2f} TB/s\n")
    result = {
        "versions": versions(),
        "checks": checks,
        "copy_bytes_per_second": bandwidth,
        "primitives": time_primitives(bandwidth, chosen.edges, chosen.l_max),
        "track": time_track(chosen.edges, chosen.l_max),
        "sanitizer": sanitize() if chosen.sanitize else {"ran": False, "reason": "not asked for"},
    }
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"written to {chosen.output}\n")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
