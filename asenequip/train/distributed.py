"""Several processes training one model: each takes a part of every batch, one all-reduce a step.

The processes are started by torchrun or by srun (or anything that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT). torch.distributed does all of it; a wrapper of the model is not needed, since gradients are summed here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from asenequip.train.step import StepResult

Item = TypeVar("Item")
_PORTS = 15000, 20000
"""Where a job of SLURM listens: a port that follows from its number."""
_PATIENCE = timedelta(hours=1)
"""How long processes wait for the leader, which alone reads the best weights, judges them and writes the potential."""
_HEAD = 6
"""Numbers before the gradients in what is exchanged: three sums, the clock, the wish to stop, lack of memory."""


@dataclass(frozen=True)
class Team:
    """One process among those that train together.

    Attributes
    ----------
    rank, size : int
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """The part of a batch that falls to this process; may be empty."""
        return list(items[self.rank :: self.size])

    def add(self, values: Tensor) -> Tensor:
        """Sum over the processes, the same on each, float64."""
        values = values.to(torch.float64)
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def tell(self, value: Any) -> Any:
        """The leader's value, on every process."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]


@dataclass(frozen=True)
class Exchanged:
    """What the processes know after a step's all-reduce.

    Attributes
    ----------
    sums : (3,) float64
        See `loss.LossFunction.terms`, of the whole batch.
    seconds : float
        The leader's clock.
    stop : bool
        Whether any process was asked to stop.
    out_of_memory : bool
        Whether any process lacked memory; the gradients are then not those of the batch.
    """

    sums: Tensor
    seconds: float
    stop: bool
    out_of_memory: bool


def exchange(
    team: Team, parameters: Sequence[nn.Parameter], result: StepResult | None, own: Exchanged, device: torch.device
) -> Exchanged:
    """Sum the gradients of all processes into the parameters, and everything else with them.

    Parameters
    ----------
    team : Team
    parameters : sequence of Parameter
    result : StepResult or None
        Of this process's share; None where it has none, or could not compute it.
    own : Exchanged
        What this process knows; its sums are not looked at.
    device : torch.device
    """
    if team.size == 1:
        if result is None:
            return own
        for parameter, gradient in zip(parameters, result.gradients, strict=True):
            parameter.grad = gradient
        return Exchanged(result.sums, own.seconds, own.stop, own.out_of_memory)
    sizes = [p.numel() for p in parameters]
    flat = torch.zeros(_HEAD + sum(sizes), dtype=torch.float64, device=device)
    if result is not None:
        flat[:3] = result.sums
        flat[_HEAD:] = torch.cat([g.reshape(-1).to(torch.float64) for g in result.gradients])
    flat[3:_HEAD] = torch.tensor([own.seconds if team.leads else 0.0, float(own.stop), float(own.out_of_memory)])
    flat = team.add(flat)
    for parameter, gradient in zip(parameters, flat[_HEAD:].split(sizes), strict=True):
        parameter.grad = gradient.view_as(parameter).to(parameter.dtype)
    return Exchanged(flat[:3], float(flat[3]), bool(flat[4] > 0), bool(flat[5] > 0))


def launch_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT of this process; empty if it trains alone.

    Parameters
    ----------
    environment : mapping
        Of the process. torchrun's variables come first; else those of a step of SLURM (``srun``) with several tasks:
        SLURM_STEP_NUM_TASKS or SLURM_NTASKS, SLURM_PROCID, SLURM_LOCALID, the first host of SLURM_STEP_NODELIST or
        SLURM_JOB_NODELIST, and a port made of SLURM_JOB_ID.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if "WORLD_SIZE" in environment:
        found = {name: environment[name] for name in names if name in environment}
        return found if int(found["WORLD_SIZE"]) > 1 else {}
    tasks = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1"))
    if "SLURM_PROCID" not in environment or int(tasks) < 2:
        return {}
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_JOB_NODELIST", "localhost"))
    low, high = _PORTS
    port = low + int(environment.get("SLURM_JOB_ID", "0")) % (high - low)
    values = (environment["SLURM_PROCID"], tasks, environment.get("SLURM_LOCALID", "0"), first_host(nodes), str(port))
    return {name: environment.get(name, value) for name, value in zip(names, values, strict=True)}


def first_host(nodes: str) -> str:
    """The first host of a list as SLURM writes it: ``gpu[007-010,15],login1`` -> ``gpu007``."""
    head = re.match(r"[^,\[]*(\[[^\]]*\][^,\[]*)*", nodes)
    return re.sub(r"\[([^,\-\]]*)[^\]]*\]", r"\1", head[0] if head else nodes)


def join_team(device: torch.device) -> Team:
    """Connect to the other processes, if the environment says that there are any."""
    launch = launch_environment(os.environ)
    if not launch:
        return Team()
    rank, size = int(launch["RANK"]), int(launch["WORLD_SIZE"])
    if not torch.distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        # torchrun has a store of its own at the address, which torch finds through the environment
        where = "env://" if "WORLD_SIZE" in os.environ else f"tcp://{launch['MASTER_ADDR']}:{launch['MASTER_PORT']}"
        options: dict[str, Any] = {"rank": rank, "world_size": size, "timeout": _PATIENCE}
        torch.distributed.init_process_group(backend, init_method=where, **options)
    return Team(rank, size)


def local_rank() -> int:
    """Number of this process among those on its machine; 0 if it trains alone."""
    return int(launch_environment(os.environ).get("LOCAL_RANK", "0"))
