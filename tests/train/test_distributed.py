"""Two processes train as one does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from train_frames import dying_trainer

from asenequip.train.config import Loss, parse_config
from asenequip.train.data import collate
from asenequip.train.distributed import first_host, launch_environment
from asenequip.train.loss import LossFunction
from asenequip.train.prepare import prepare
from asenequip.train.preprocess import preprocess
from asenequip.train.sources import load_data
from asenequip.train.step import batch_residuals

AGREEMENT = 1e-12
"""Relative: float64 sums over frames in two halves instead of one go."""
CLI = [sys.executable, "-c", "from asenequip.train.cli import main; main()"]


def free_port() -> int:
    """One of those that a job of SLURM may get."""
    for port in np.random.default_rng(os.getpid()).permutation(np.arange(15000, 20000)).tolist():
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(port)
    raise OSError("no port is free")


def torchrun_variables(rank: int, size: int, port: int) -> dict[str, str]:
    names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in names.items()}


def slurm_variables(rank: int, size: int, port: int) -> dict[str, str]:
    """What srun sets; the port follows from the number of the job, here from a free one."""
    job = 25000 + port - 15000
    names = {"SLURM_PROCID": rank, "SLURM_NTASKS": size, "SLURM_LOCALID": rank, "SLURM_JOB_ID": job}
    return {**{name: str(value) for name, value in names.items()}, "SLURM_JOB_NODELIST": "localhost"}


Variables = Callable[[int, int, int], dict[str, str]]


def start(
    arguments: list[str], processes: int, variables: Variables, program: Sequence[str] = CLI
) -> list[subprocess.Popen[bytes]]:
    """The trainer in so many processes."""
    port = free_port()
    return [
        subprocess.Popen(
            [*program, *arguments], env={**os.environ, **variables(rank, processes, port)}, stdout=subprocess.DEVNULL
        )
        for rank in range(processes)
    ]


def finish(started: list[subprocess.Popen[bytes]]) -> None:
    assert [process.wait(timeout=600) for process in started] == [0] * len(started)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("variables", "sharded"), [(torchrun_variables, False), (slurm_variables, False), (torchrun_variables, True)]
)
def test_two_processes_give_the_losses_of_one(
    data_file: Path,
    settings: Callable[..., dict[str, Any]],
    tmp_path: Path,
    variables: Variables,
    sharded: bool,
) -> None:
    """Seven frames in batches of three: the shares are uneven, and in the last batch one process has none.

    Where data are sharded, the two stream them, each with a worker, and the one has them in memory.
    """
    if sharded:
        pytest.importorskip("lmdb")
    tables = []
    for processes in (1, 2):
        output = tmp_path / f"run{processes}"
        data = {"train": str(data_file), "split": {"valid": 3, "test": 2}}
        training = {"epochs": 4, "batch_size": 3, "ema": 0.5}
        values = settings(data=data, training=training, dtype="float64", output=str(output))
        config, more = tmp_path / f"config{processes}.yaml", []
        config.write_text(yaml.safe_dump(values))
        if sharded and processes == 2:
            preprocess(parse_config(values), tmp_path / "shards")
            more = ["--set", f"data.shards={tmp_path / 'shards'}", "--set", "training.workers=1"]
        finish(start([str(config), *more], processes, variables))
        tables.append(np.genfromtxt(output / "metrics.csv", delimiter=",", names=True))
    assert not (tmp_path / "run2-2").exists()
    for name in tables[0].dtype.names:
        np.testing.assert_allclose(tables[1][name], tables[0][name], rtol=AGREEMENT, err_msg=name)


@pytest.mark.distributed
def test_two_killed_processes_go_on_as_if_nothing_had_been(
    data_file: Path, settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Killed in the middle of an epoch, resumed by two again: the curve of two that were left alone, bit for bit."""
    data, training = {"train": str(data_file)}, {"epochs": 4, "batch_size": 3, "checkpoint_seconds": 0}
    for name in ("whole", "killed"):
        values = settings(data=data, training=training, output=str(tmp_path / name))
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    finish(start([str(tmp_path / "whole.yaml")], 2, torchrun_variables))
    started = start([str(tmp_path / "killed.yaml")], 2, torchrun_variables, program=dying_trainer(6))
    assert [process.wait(timeout=600) for process in started] == [-signal.SIGKILL] * 2
    assert not (tmp_path / "killed" / "model.asnq").exists()
    finish(start(["resume", str(tmp_path / "killed")], 2, torchrun_variables))
    assert (tmp_path / "killed" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


def test_divisors_are_the_weights_of_the_loss(frames: list[Atoms], settings: Callable[..., dict[str, Any]]) -> None:
    """What is known from the labels alone equals what the loss sums up on the batch, missing labels included."""
    del frames[0].calc.results["stress"]
    del frames[1].calc.results["energy"]
    config = parse_config(settings(data={"split": {"valid": 0, "test": 0}}))
    prepared = prepare(config, load_data(config.data, frames))
    samples = prepared.samples["train"]
    loss = LossFunction(Loss(species_weights={"Cu": 0.25}), prepared.species)
    batch = collate(samples)
    _, weights = loss.terms(batch_residuals(prepared.model, batch), batch)
    np.testing.assert_allclose(loss.divisors(samples).numpy(), weights.numpy(), rtol=AGREEMENT)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("gpu[007-010,15],login1", "gpu007"),
        ("a-b[3,5-9]", "a-b3"),
        ("login1,gpu[1-2]", "login1"),
        ("rack[1-2]n[05-07]", "rack1n05"),
    ],
)
def test_first_host_of_a_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize("nodes", ["node7", "gpu[007-010,15]", "a-b[3,5-9]", "login1,gpu1", "n[09,11]"])
def test_first_host_is_that_of_lightning(nodes: str) -> None:
    environments = pytest.importorskip("lightning_fabric.plugins.environments")
    assert first_host(nodes) == environments.SLURMEnvironment.resolve_root_node_address(nodes)


def test_variables_of_torchrun_come_first() -> None:
    assert launch_environment({**slurm_variables(1, 4, 15001), **torchrun_variables(0, 2, 16000)}) == (
        torchrun_variables(0, 2, 16000)
    )


@pytest.mark.parametrize(
    "environment", [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"SLURM_NTASKS": "4"}, slurm_variables(0, 1, 15001)]
)
def test_process_without_others_trains_alone(environment: dict[str, str]) -> None:
    """SLURM_NTASKS without SLURM_PROCID: a shell inside an allocation, not a step of srun."""
    assert launch_environment(environment) == {}


def test_step_of_slurm_is_understood() -> None:
    found = launch_environment({**slurm_variables(3, 4, 15077), "SLURM_JOB_NODELIST": "gpu[03-04]"})
    wanted = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3", "MASTER_ADDR": "gpu03", "MASTER_PORT": "15077"}
    assert found == wanted
