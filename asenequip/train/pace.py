"""What settings leave open of a training's pace: frames per step, epochs, validations."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asenequip.train.batching import epoch_order
from asenequip.train.config import Config, Training
from asenequip.train.table import FrameTable

_ATOMS = 50
"""Atoms of a step: on a processor its time grows with them, and in equal time many small steps learn more."""
_FRAMES = 32
"""Frames of a step, at most."""
_STEPS = 30_000
_EPOCHS = 20, 1000
"""Fewest and most epochs, whatever they make of `_STEPS`."""
_JUDGED = 25
"""Steps between two validations: small data sets have epochs of a few steps."""


@dataclass(frozen=True)
class Pace:
    """How a training goes over its frames.

    Attributes
    ----------
    batch_size : int
        Frames of a step.
    epochs : float
        Infinite where the time alone ends the training.
    valid_every : int
        Epochs between two validations.
    """

    batch_size: int
    epochs: float
    valid_every: int


def choose_pace(settings: Training, frames: int, atoms: float) -> Pace:
    """The pace that the settings ask for; what they leave open follows from the data.

    Parameters
    ----------
    settings : Training
    frames : int
        Frames of an epoch.
    atoms : float
        Mean number of atoms of a frame.
    """
    size = settings.batch_size or min(max(1, round(_ATOMS / max(atoms, 1.0))), _FRAMES)
    steps = math.ceil(frames / size)
    open_end = math.inf if settings.minutes is not None else min(max(_EPOCHS[0], round(_STEPS / steps)), _EPOCHS[1])
    return Pace(size, settings.epochs or open_end, settings.valid_every or max(1, round(_JUDGED / steps)))


def pace_of(config: Config, table: FrameTable) -> Pace:
    """The pace of a training on the frames of a table."""
    frames = len(epoch_order(config.seed, 0, table.datasets, config.data.train))
    return choose_pace(config.training, frames, float(table.atoms.sum()) / len(table))


def set_pace(config: Config, table: FrameTable) -> Config:
    """The settings with what they left open filled in; epochs stay absent where the time alone ends the training."""
    pace = pace_of(config, table)
    values = {"batch_size": pace.batch_size, "valid_every": pace.valid_every}
    if math.isfinite(pace.epochs):
        values["epochs"] = int(pace.epochs)
    return config.model_copy(update={"training": config.training.model_copy(update=values)})


def keep_pace(config: Config, old: Config) -> Config:
    """The settings of a run that goes on, with what they leave open as it was."""
    names = ("batch_size", "epochs", "valid_every")
    absent = [name for name in names if getattr(config.training, name) is None]
    values = {name: getattr(old.training, name) for name in absent}
    return config.model_copy(update={"training": config.training.model_copy(update=values)})
