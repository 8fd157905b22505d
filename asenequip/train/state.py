"""Where training stands, and how all of it goes into a checkpoint and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from asenequip.model.allegro import Allegro
from asenequip.train.checkpoint import Checkpoint
from asenequip.train.optimizers import Optimizer
from asenequip.train.schedule import MovingAverage, Plateau


@dataclass
class Progress:
    """Where training stands.

    Attributes
    ----------
    epoch, frames, step : int
        Epochs done, frames done of the present one, optimiser steps taken.
    polishing : bool
        Whether polishing has begun: the averaged weights are then the weights.
    rounds : int
        Rounds of polishing done.
    seconds : float
        Time spent training, over all continuations.
    budget : int or None
        Edges of a batch at most; falls where memory did not suffice.
    sums, weights : list of float
        Weighted penalties of the present epoch; see `LossFunction.terms`.
    best : float
        Lowest validation loss.
    best_epoch : int
    rows : list of dict
        One row of metrics per validated epoch.
    offsets : list of list of float
        Energy per atom of each data set and type taken off the labels, eV.
    """

    epoch: int = 0
    frames: int = 0
    step: int = 0
    polishing: bool = False
    rounds: int = 0
    seconds: float = 0.0
    budget: int | None = None
    sums: list[float] = field(default_factory=lambda: [0.0] * 3)
    weights: list[float] = field(default_factory=lambda: [0.0] * 3)
    best: float = math.inf
    best_epoch: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """What the loop tells its watcher: a step or a finished epoch ("row" is then there), or something to say."""

    progress: Progress
    loss: float
    rate: float
    part: float
    row: dict[str, float] | None = None
    text: str | None = None


def pack_state(
    model: Allegro, average: MovingAverage, optimizers: Mapping[str, Optimizer], plateau: Plateau, progress: Progress
) -> Checkpoint:
    """Everything that training goes on from; ``optimizers`` by a name without a dot."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in enumerate(average.weights)}
    values = {"progress": vars(progress), "plateau": vars(plateau)}
    for name, optimizer in optimizers.items():
        packed = optimizer.pack()
        tensors |= {f"{name}.{k}": v for k, v in packed.tensors.items()}
        values[name] = packed.values
    return Checkpoint(tensors, values)


def unpack_state(
    checkpoint: Checkpoint, model: Allegro, average: MovingAverage, optimizers: Mapping[str, Optimizer]
) -> tuple[Plateau, Progress]:
    """Put a packed state back."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    model.load_state_dict(groups["model"])
    weights: Sequence[torch.Tensor] = average.weights
    average.weights = [groups["average"][str(k)].to(w.device) for k, w in enumerate(weights)]
    for name, optimizer in optimizers.items():
        optimizer.unpack(Checkpoint(groups.get(name, {}), checkpoint.values[name]))
    return Plateau(**checkpoint.values["plateau"]), Progress(**checkpoint.values["progress"])
