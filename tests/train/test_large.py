"""A data set four times the memory that the trainer is allowed: ``pytest -m slow tests/train/test_large.py``."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.io import write

from asenequip.neighbors import find_edges

pytest.importorskip("lmdb")
ROOM = 256 * 2**20
"""Bytes that the trainer may use beyond what it needs for two frames: much less than the data, enough for its steps."""
BYTES_PER_EDGE = 40
"""Of a graph in memory: two atoms of eight bytes, a shift of three times eight."""
CUTOFF = 7.0
STIFFNESS = 5.0
"""eV/Angstrom^2, of the springs that label the frames."""
FIT = (
    "import sys; from asenequip.train import fit, load_config; fit(None, load_config(sys.argv[1], sys.argv[2:]));"
    "print(next(line for line in open('/proc/self/status') if line.startswith('VmPeak')))"
)
CLI = "from asenequip.train.cli import main; main()"


def frames_on_springs(count: int) -> list[Atoms]:
    """Copper of 864 atoms, each on a spring, in text form about 100 bytes an atom."""
    out, random = [], np.random.default_rng(0)
    for _ in range(count):
        atoms = bulk("Cu", cubic=True) * 6
        moves = random.normal(scale=0.05, size=atoms.positions.shape)
        atoms.positions += moves
        atoms.info["energy"] = 0.5 * STIFFNESS * float((moves**2).sum())
        atoms.arrays["forces"] = -STIFFNESS * moves
        out.append(atoms)
    return out


def run(code: str, arguments: list[str], limit: int | None) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, under a limit of its virtual memory (``ulimit -v``)."""

    def restrict() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        preexec_fn=restrict,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )


def write_settings(path: Path, data: Path) -> Path:
    model = {"cutoff": CUTOFF, "l_max": 0, "num_layers": 1, "num_scalar_features": 4, "num_tensor_features": 2}
    model |= {"two_body_width": 4, "latent_width": 4, "readout_width": 4, "num_bessels": 4, "two_body_depth": 0}
    values = {
        "data": {"train": str(data), "split": {"valid": 2, "test": 0, "method": "end"}},
        "model": {**model, "latent_depth": 0},
        "training": {"epochs": 1, "batch_size": 1},
        "device": "cpu",
        "threads": 1,
        "output": str(path.with_suffix("")),
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit and /proc/self/status are Linux's")
def test_data_four_times_the_memory_are_trained_on(tmp_path: Path) -> None:
    frames = frames_on_springs(3)
    write(tmp_path / "few.extxyz", frames)
    config = write_settings(tmp_path / "few.yaml", tmp_path / "few.extxyz")
    assert run(CLI, ["preprocess", str(config), "-o", str(tmp_path / "few")], None).returncode == 0
    done = run(FIT, [str(config), f"data.shards={tmp_path / 'few'}", "output=" + str(tmp_path / "run")], None)
    limit = 1024 * int(done.stdout.split()[1]) + ROOM

    atoms = frames[0]
    edges = len(find_edges(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)[0])
    count = -(-4 * limit // (BYTES_PER_EDGE * edges))
    write(tmp_path / "many.extxyz", frames_on_springs(count))
    config = write_settings(tmp_path / "many.yaml", tmp_path / "many.extxyz")
    size = count * edges * BYTES_PER_EDGE
    print(f"limit {limit >> 20} MiB; {count} frames of {edges} edges: {size >> 20} MiB in memory")

    in_memory = run(FIT, [str(config)], limit)
    assert in_memory.returncode != 0
    assert "emory" in in_memory.stderr
    shards = ["preprocess", str(config), "-o", str(tmp_path / "shards"), "--shard-size", "16"]
    written = run(CLI, shards, limit)
    assert written.returncode == 0, written.stderr
    stored = sum(path.stat().st_blocks * 512 for path in (tmp_path / "shards").glob("*.lmdb"))
    print(f"{stored >> 20} MiB of shards")
    streamed = run(FIT, [str(config), f"data.shards={tmp_path / 'shards'}", "output=" + str(tmp_path / "done")], limit)
    assert streamed.returncode == 0, streamed.stderr
    (row,) = (tmp_path / "done" / "metrics.csv").read_text().splitlines()[1:]
    assert int(row.split(",")[1]) == count - 2
