"""What follows from the data where the settings leave it open."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from train_frames import same_runs

from asenequip.train import fit, parse_config
from asenequip.train.config import Training
from asenequip.train.pace import choose_pace
from asenequip.train.resume import resume_run
from asenequip.train.rundir import RunDirectory

Settings = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("frames", "atoms", "batch", "epochs"),
    [
        (400, 27, 2, 150),  # 50 atoms; 200 steps an epoch, 30,000 in all
        (70, 416, 1, 429),
        (10, 1.5, 32, 1000),  # 32 frames and 1000 epochs at most
        (10**6, 10, 5, 20),  # 20 epochs at least
    ],
)
def test_open_settings_follow_from_the_frames(frames: int, atoms: float, batch: int, epochs: int) -> None:
    pace = choose_pace(Training(), frames, atoms)
    assert (pace.batch_size, pace.epochs) == (batch, epochs)


def test_minutes_alone_leave_the_epochs_open() -> None:
    assert math.isinf(choose_pace(Training(minutes=1.0), 100, 50).epochs)
    assert choose_pace(Training(minutes=1.0, epochs=7), 100, 50).epochs == 7


@pytest.mark.parametrize(("frames", "every"), [(4, 25), (40, 6), (400, 1)])
def test_validations_are_about_25_steps_apart(frames: int, every: int) -> None:
    assert choose_pace(Training(batch_size=10), frames, 50).valid_every == every


def test_run_keeps_the_pace_that_it_found(data_file: Path, settings: Settings, tmp_path: Path) -> None:
    """Its settings are whole; it goes on with the user's, in which they are still open."""
    open_settings = {"batch_size": None, "valid_every": None, "epochs": 2}
    values = settings(data={"train": str(data_file)}, training=open_settings)
    fit(None, values)
    kept = RunDirectory(tmp_path / "run").config().training
    assert (kept.batch_size, kept.valid_every) == (6, 12)  # cells of eight atoms, seven of them
    (tmp_path / "run").rename(tmp_path / "first")
    fit(None, values)
    (tmp_path / "run" / "summary.json").unlink()
    said: list[str] = []
    resume_run(tmp_path / "run", parse_config(values), quiet=True, say=said.append)
    assert not any("->" in line for line in said)
    assert same_runs(tmp_path / "first", tmp_path / "run")


def test_minutes_are_used_to_their_end(frames: list[Atoms], settings: Settings, tmp_path: Path) -> None:
    fit(frames, settings(training={"epochs": None, "minutes": 0.03, "warmup_steps": 0}))
    rows = np.genfromtxt(tmp_path / "run" / "metrics.csv", delimiter=",", names=True)
    assert RunDirectory(tmp_path / "run").read_json("summary.json")["seconds"] >= 1.8
    assert rows["learning_rate"][-1] == pytest.approx(0.01 * 0.01, rel=1e-6)
