"""Two processes train as one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms

from asenequip.train.config import Loss
from asenequip.train.data import collate
from asenequip.train.loss import LossFunction
from asenequip.train.run import load_data, prepare
from asenequip.train.step import batch_residuals

AGREEMENT = 1e-12
"""Relative: float64 sums over frames in two halves instead of one go."""
CLI = [sys.executable, "-c", "from asenequip.train.cli import main; main()"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def train(config: Path, processes: int) -> None:
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen([*CLI, str(config)], env={**common, "RANK": str(rank)}, stdout=subprocess.DEVNULL)
        for rank in range(processes)
    ]
    assert [process.wait(timeout=600) for process in started] == [0] * processes


@pytest.mark.distributed
def test_two_processes_give_the_losses_of_one(
    data_file: Path, settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Seven frames in batches of three: the shares are uneven, and in the last batch one process has none."""
    tables = []
    for processes in (1, 2):
        output = tmp_path / f"run{processes}"
        data = {"train": str(data_file), "split": {"valid": 3, "test": 2}}
        training = {"epochs": 4, "batch_size": 3, "ema": 0.5}
        values = settings(data=data, training=training, dtype="float64", output=str(output))
        config = tmp_path / f"config{processes}.yaml"
        config.write_text(yaml.safe_dump(values))
        train(config, processes)
        tables.append(np.genfromtxt(output / "metrics.csv", delimiter=",", names=True))
    assert not (tmp_path / "run2-2").exists()
    for name in tables[0].dtype.names:
        np.testing.assert_allclose(tables[1][name], tables[0][name], rtol=AGREEMENT, err_msg=name)


def test_divisors_are_the_weights_of_the_loss(frames: list[Atoms], settings: Callable[..., dict[str, Any]]) -> None:
    """What is known from the labels alone equals what the loss sums up on the batch, missing labels included."""
    from asenequip.train.config import parse_config

    del frames[0].calc.results["stress"]
    del frames[1].calc.results["energy"]
    config = parse_config(settings(data={"split": {"valid": 0, "test": 0}}))
    prepared = prepare(config, load_data(config.data, frames))
    samples = prepared.samples["train"]
    loss = LossFunction(Loss(species_weights={"Cu": 0.25}), prepared.species)
    batch = collate(samples)
    _, weights = loss.terms(batch_residuals(prepared.model, batch), batch)
    np.testing.assert_allclose(loss.divisors(samples).numpy(), weights.numpy(), rtol=AGREEMENT)
