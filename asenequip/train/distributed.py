"""Several processes training one model: each takes a part of every batch, one all-reduce a step.

The processes are started by torchrun (or anything that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


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

    def leave(self) -> None:
        """Take down the connections."""
        if self.size > 1:
            torch.distributed.destroy_process_group()


def join_team(device: torch.device) -> Team:
    """Connect to the other processes, if the environment says that there are any."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team()
    rank = int(os.environ["RANK"])
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Team(rank, size)
