"""Learning rates and moving averages of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from asenequip.train.config import Training


@dataclass
class Plateau:
    """Divides the learning rate when the validation loss stops falling.

    Attributes
    ----------
    factor : float
        Present part of the learning rate.
    best : float
    waited : int
        Validations since the best.
    """

    factor: float = 1.0
    best: float = math.inf
    waited: int = 0

    def observe(self, loss: float, settings: Training) -> None:
        """Take in a validation loss."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > settings.plateau_patience:
            self.factor, self.waited = self.factor * settings.plateau_factor, 0


def learning_rate(settings: Training, step: int, progress: float, plateau: Plateau) -> float:
    """Learning rate of a step.

    Parameters
    ----------
    settings : Training
    step : int
        Steps taken before.
    progress : float
        0 at the start, 1 at the end of training.
    plateau : Plateau
    """
    warm = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    final = settings.final_learning_rate
    if settings.optimizer == "schedule_free":
        shape = 1.0
    elif settings.schedule == "cosine":
        shape = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    elif settings.schedule == "plateau":
        shape = max(final, plateau.factor)
    else:
        shape = 1.0
    return settings.learning_rate * warm * shape


@dataclass
class MovingAverage:
    """Exponential moving average of the trained weights.

    The decay grows as (1 + t) / (10 + t) up to ``decay``, so that the start weights are soon forgotten.
    """

    decay: float
    weights: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, parameters: Iterable[nn.Parameter], decay: float) -> MovingAverage:
        """Begin with the present weights."""
        return cls(decay, [p.detach().clone() for p in parameters])

    def update(self, parameters: Iterable[nn.Parameter], step: int) -> None:
        """Move towards the weights after step number ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self.weights, [p.detach() for p in parameters], 1 - decay)

    def swap(self, parameters: Iterable[nn.Parameter]) -> None:
        """Exchange with the parameters: once to evaluate with the average, once more to train on."""
        with torch.no_grad():
            for mine, parameter in zip(self.weights, parameters, strict=True):
                kept = parameter.detach().clone()
                parameter.copy_(mine)
                mine.copy_(kept)
