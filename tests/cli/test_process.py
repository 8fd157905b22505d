"""The command as a process: no terminal, signals, exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from asenequip import AllegroCalculator
from asenequip.md import run_md

COMMAND = [sys.executable, "-m", "asenequip"]


@pytest.fixture
def start(tmp_path: Path) -> Path:
    atoms = bulk("CuO", "rocksalt", a=4.3) * (2, 2, 2)
    write(tmp_path / "start.xyz", atoms)
    return tmp_path / "start.xyz"


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} has not come"
        time.sleep(0.05)


def test_ctrl_c_says_how_to_go_on_and_the_run_goes_on_exactly(small_artifact, start, tmp_path):
    words = ["md", start, "-m", small_artifact, "-o", tmp_path / "run.xyz", "-n", "1000000", "--device", "cpu"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(tmp_path / "run.restart", process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 130
    assert f"Go on with: asenequip md --resume {tmp_path / 'run.restart'}" in told
    assert "Traceback" not in told
    done = int(told.split("Stopped at step ")[1].split()[0])
    resume = ["md", "--resume", tmp_path / "run.restart", "-n", str(done + 7)]
    subprocess.run([*COMMAND, *map(str, resume)], check=True, capture_output=True, timeout=600)
    calculator = AllegroCalculator(small_artifact, device="cpu")
    run_md(read(start), calculator, steps=done + 7, trajectory=tmp_path / "whole.xyz")
    found, wanted = read(tmp_path / "run.xyz", ":"), read(tmp_path / "whole.xyz", ":")
    assert np.array_equal([f.positions for f in found], [f.positions for f in wanted])


def test_no_control_codes_without_a_terminal(small_artifact, start, tmp_path):
    words = ["evaluate", start, "-m", small_artifact, "-o", tmp_path / "out.xyz"]
    done = subprocess.run([*COMMAND, *map(str, words)], check=True, capture_output=True, timeout=600)
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"Structures: 1/1" in done.stderr


def test_an_error_goes_to_standard_error_with_exit_code_2():
    done = subprocess.run([*COMMAND, "info", "none.asnq"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: There is no potential at 'none.asnq'.")
