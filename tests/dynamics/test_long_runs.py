"""What only long runs show: memory that stays flat."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk

from asenequip import AllegroCalculator
from asenequip.md import run_md

STEPS, SETTLED = 20_000, 4_000
GROWTH = 1024
"""kB that the run may take after it has settled: less than 65 bytes a step, where a lost list alone has some 20,000."""


def resident_kilobytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell the resident memory")
def test_memory_is_flat(tmp_path):
    """With trajectory, table, state and a list that is rebuilt; benchmarks/bench_dynamics.py makes 10^5 steps."""
    atoms = bulk("Cu", cubic=True) * 2
    spread = np.sqrt(atoms.get_masses() * 600 * units.kB)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    calculator = AllegroCalculator(str(files("asenequip.data") / "emt.asnq"), device="cpu", dtype="float32", skin=0.3)
    seen: dict[int, int] = {}
    run_md(
        atoms,
        calculator,
        steps=STEPS,
        timestep=5.0,
        temperature=600.0,
        interval=1000,
        trajectory=tmp_path / "run.traj",
        log=tmp_path / "run.csv",
        watch=lambda numbers: seen.update({int(numbers["step"]): resident_kilobytes()}),
    )
    assert calculator.evaluator.lists.builds > 50
    assert max(size for step, size in seen.items() if step > SETTLED) - seen[SETTLED] < GROWTH
