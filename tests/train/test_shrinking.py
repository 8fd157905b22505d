"""Lack of memory: batches shrink, the user is told, and a run that was shrunk goes on exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from train_frames import fit_and_die, same_runs

from asenequip.train import fit
from asenequip.train.loop import FrameTooLargeError, Trainer
from asenequip.train.resume import resume_run
from asenequip.train.rundir import RunDirectory

Settings = Callable[..., dict[str, Any]]


def small_memory(monkeypatch: pytest.MonkeyPatch, edges: int, error: type[Exception]) -> None:
    """Let every step fail as torch does where a batch has more edges than fit."""
    build = Trainer.__init__

    def built(self: Trainer, *arguments: Any, **named: Any) -> None:
        build(self, *arguments, **named)
        gradients = self.gradients

        def limited(batch: Any, *rest: torch.Tensor) -> Any:
            if batch.graph.num_edges > edges:
                raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
            return gradients(batch, *rest)

        self.gradients = limited

    monkeypatch.setattr(Trainer, "__init__", built)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, torch.OutOfMemoryError])
def test_batches_shrink_and_the_user_is_told(
    frames: list[Atoms],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[Exception],
) -> None:
    """Frames of about a hundred edges, four at a time, where 250 fit."""
    small_memory(monkeypatch, edges=250, error=error)
    fit(frames, settings(training={"batch_size": 4}), quiet=False)
    assert "Memory did not suffice for a batch of" in capsys.readouterr().out
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    budgets = [event["budget"] for event in events if event["event"] == "out of memory"]
    assert budgets == sorted(budgets, reverse=True)
    assert 100 < budgets[-1] <= 250
    assert any(event["event"] == "done" for event in events)


def test_shrunk_run_goes_on_bit_for_bit(
    data_file: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, edges=250, error=MemoryError)
    values = settings(data={"train": str(data_file)}, training={"batch_size": 4, "checkpoint_seconds": 0.0})
    fit(None, values)
    fit_and_die(monkeypatch, {**values, "output": str(tmp_path / "killed")}, 5)
    resume_run(tmp_path / "killed", RunDirectory(tmp_path / "killed").config(), quiet=True, say=lambda t: None)
    assert same_runs(tmp_path / "run", tmp_path / "killed")


def test_single_frame_that_does_not_fit_is_named(
    frames: list[Atoms], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, edges=10, error=MemoryError)
    with pytest.raises(FrameTooLargeError, match=r"for frame \d+ alone"):
        fit(frames, settings())


def test_other_errors_are_not_taken_for_it(
    frames: list[Atoms], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, edges=250, error=ValueError)
    with pytest.raises(ValueError, match="allocate"):
        fit(frames, settings(training={"batch_size": 4}))
