"""How the command ends: the exit codes are those of the documentation, the text names the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from train_frames import fit_and_die, same_runs
from typer.testing import CliRunner

from asenequip.artifact import load_artifact
from asenequip.interrupt import Interrupted
from asenequip.train import fit, settings_file
from asenequip.train.cli import app
from asenequip.train.config import ConfigError
from asenequip.train.loop import FrameTooLargeError, NonFiniteLossError
from asenequip.train.rundir import RunDirectory, RunLockedError

Settings = Callable[..., dict[str, Any]]
PAGE = Path(__file__).parents[2] / "docs" / "training.md"
DOCUMENTED = {
    ConfigError: "settings or data are wrong",
    RunLockedError: "another process trains in the directory",
    NonFiniteLossError: "the loss is not a number",
    FrameTooLargeError: "memory does not suffice for a single frame",
    Interrupted: "interrupted, state saved",
}


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_exit_code_is_the_documented_one(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise kind("what happened, and what to do")

    monkeypatch.setattr(settings_file, "load_config", fail)
    result = CliRunner().invoke(app, ["run", "settings.yaml"])
    (wanted,) = re.findall(rf"^\| (\d+) \| {DOCUMENTED[kind]}", PAGE.read_text(), re.MULTILINE)
    assert result.exit_code == int(wanted)
    assert "what happened, and what to do" in result.output


def test_second_trainer_ends_with_four(data_file: Path, settings: Settings, tmp_path: Path) -> None:
    fit(None, settings(data={"train": str(data_file)}, training={"epochs": 1}))
    (tmp_path / "run" / "summary.json").unlink()
    with RunDirectory(tmp_path / "run").lock():
        result = CliRunner().invoke(app, ["resume", str(tmp_path / "run")])
    assert result.exit_code == 4
    assert "Another process is training" in result.output


@pytest.mark.parametrize("damage", [lambda whole: whole[:-9], lambda whole: whole[:-1] + bytes([whole[-1] ^ 1])])
def test_damaged_checkpoint_is_told_and_the_one_before_goes_on_bit_for_bit(
    data_file: Path,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[bytes], bytes],
) -> None:
    values = settings(data={"train": str(data_file)}, training={"checkpoint_seconds": 0})
    fit(None, values)
    fit_and_die(monkeypatch, {**values, "output": str(tmp_path / "killed")}, steps=7)
    newest = max((tmp_path / "killed" / "checkpoints").glob("last-*"))
    newest.write_bytes(damage(newest.read_bytes()))
    result = CliRunner().invoke(app, ["resume", str(tmp_path / "killed")])
    assert result.exit_code == 0, result.output
    assert f"The checkpoint {newest.name} is damaged; an earlier one is used." in result.output
    assert same_runs(tmp_path / "run", tmp_path / "killed")


def test_damaged_best_epoch_is_told_and_the_last_average_taken(
    data_file: Path, settings: Settings, tmp_path: Path
) -> None:
    """A run whose last epoch is its best, so that the potential comes out the same."""
    fit(None, settings(data={"train": str(data_file)}))
    run = RunDirectory(tmp_path / "run")
    assert run.read_json("summary.json")["best_epoch"] == 3
    kept = run.potential.rename(tmp_path / "kept.asnq")
    (tmp_path / "run" / "summary.json").unlink()
    (best,) = run.checkpoints.glob("best-*")
    best.write_bytes(best.read_bytes()[:-9])
    result = CliRunner().invoke(app, ["resume", str(run.path)])
    assert result.exit_code == 0, result.output
    assert "The best epoch has no undamaged checkpoint" in result.output
    first, second = (load_artifact(path).model.state_dict() for path in (kept, run.potential))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_settings_and_frames_that_do_not_exist_are_told_apart(tmp_path: Path) -> None:
    for name in ("settings.yaml", "frames.xyz"):
        result = CliRunner().invoke(app, ["run", str(tmp_path / name)])
        assert result.exit_code == 2
        assert f"There is no file {tmp_path / name}" in result.output
        assert "asenequip-train init FRAMES" in result.output
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(["a"]))
    result = CliRunner().invoke(app, ["run", str(tmp_path / "settings.yaml")])
    assert "must hold settings" in result.output
