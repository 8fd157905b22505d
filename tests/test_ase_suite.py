"""ASE's own tests with an Allegro potential in the place of EMT; failures that are not known fail here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ase
import pytest

RUNNER = Path(__file__).resolve().parent / "ase_suite" / "run.py"

pytestmark = [
    pytest.mark.skipif(
        ase.__version__ != "3.29.0", reason=f"the files listed are those of ASE 3.29.0, not {ase.__version__}"
    )
]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(RUNNER), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.ase_suite
@pytest.mark.slow
def test_ase_suite() -> None:
    result = run()
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


@pytest.mark.ase_suite
def test_a_part_of_the_suite() -> None:
    result = run("atoms/test_h2", "calculator/test_subprocess", "optimize/test_nsteps", "test_mixingcalc")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
