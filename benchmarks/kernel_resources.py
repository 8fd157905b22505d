"""Registers, spills and shared memory of every generated CUDA kernel, for every architecture; needs no GPU.

``python benchmarks/kernel_resources.py`` compiles the kernels of a matrix of models with NVIDIA's runtime compiler
(``pip install nvidia-cuda-nvrtc``), prints one line per model and architecture, and writes one row per kernel to
``benchmarks/results/kernel_resources.json``. Runs for some architectures or models only replace their own rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from asenequip.kernels import nvrtc
from asenequip.kernels.generate import DOUBLE, SINGLE, cuda_source

RESULTS = Path(__file__).parent / "results"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
MODELS = (
    *((l_max, 2, False) for l_max in range(5)),
    *((l_max, 3, True) for l_max in range(1, 5)),
)
"""(l_max, layers, parity)"""


def measure(architecture: int, model: tuple[int, int, bool]) -> list[dict[str, object]]:
    """One row per kernel of a model: float32, and float64 up to l_max 2."""
    library = nvrtc.find()
    l_max, layers, parity = model
    rows = []
    for shared in (False, True):
        for name, polynomial in nvrtc.model_kernels(l_max, layers, parity, shared).items():
            if shared and not name.startswith(("env_sum", "edge_proj", "edge_dir")):
                continue  # the same kernels as above
            for scalar in (SINGLE, DOUBLE) if l_max <= 2 else (SINGLE,):
                used = nvrtc.compile_cuda(library, cuda_source(polynomial, scalar), f"sm_{architecture}")
                row = {"architecture": architecture, "l_max": l_max, "layers": layers, "parity": parity}
                row |= {"shared_weights": shared, "kernel": name, "type": scalar.name}
                rows.append(
                    row | {"registers": used.registers, "spilled_bytes": used.spilled, "shared_bytes": used.shared}
                )
    return rows


def summary(rows: list[dict], seconds: float) -> str:
    """Of one model on one architecture: the largest registers and the kernels that spill."""
    head = "sm_{architecture} l_max {l_max} layers {layers} parity {parity}".format(**rows[0])
    spills = {f"{row['kernel']} ({row['type']})": row["spilled_bytes"] for row in rows if row["spilled_bytes"]}
    most = max(row["registers"] for row in rows)
    return f"{head}: {len(rows)} kernels, at most {most} registers, spilled bytes {spills or 0}, {seconds:.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--l-max", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--output", type=Path, default=RESULTS / "kernel_resources.json")
    chosen = parser.parse_args()
    library = nvrtc.find()
    if library is None:
        sys.stderr.write("libnvrtc was not found. Install it with: pip install nvidia-cuda-nvrtc\n")
        return 1
    known = json.loads(chosen.output.read_text(encoding="utf-8"))["rows"] if chosen.output.exists() else []
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    for architecture in chosen.architectures:
        if architecture not in nvrtc.architectures(library):
            sys.stdout.write(f"sm_{architecture}: this NVRTC does not compile for it\n")
            continue
        for model in MODELS:
            if model[0] not in chosen.l_max:
                continue
            start = time.perf_counter()
            rows = measure(architecture, model)
            sys.stdout.write(summary(rows, time.perf_counter() - start) + "\n")
            sys.stdout.flush()
            key = (architecture, *model)
            old = [r for r in known if (r["architecture"], r["l_max"], r["layers"], r["parity"]) != key]
            known = sorted([*old, *rows], key=lambda r: [str(v).rjust(4) for v in list(r.values())[:4]])
            lines = ",\n  ".join(json.dumps(row) for row in known)
            head = json.dumps(".".join(map(str, nvrtc.version(library))))
            chosen.output.write_text(f'{{\n "nvrtc": {head},\n "rows": [\n  {lines}\n ]\n}}\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
