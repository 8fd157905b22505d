"""Training inside a campaign: a run of asenequip-train that goes on where it was killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from asenequip.active.rounds import write_frames
from asenequip.active.settings import Campaign
from asenequip.train.config import ConfigError


def train_potential(
    folder: Path, train: Sequence[Atoms], valid: Sequence[Atoms], campaign: Campaign, start: str | None
) -> Path:
    """Train on labelled frames, or go on with the run that is there.

    Parameters
    ----------
    folder : Path
        Of the round; data go to ``data/``, the run to ``train/``.
    train, valid : sequences of ase.Atoms
    campaign : Campaign
    start : str, optional
        Potential to go on from.

    Returns
    -------
    Path
        The potential, with its uncertainty.
    """
    from asenequip.train.resume import resume_run
    from asenequip.train.run import fit

    data: dict[str, Any] = {"split": {"valid": 0, "test": 0}}
    for name, frames in (("train", train), ("valid", valid)):
        path = folder / "data" / f"{name}.extxyz"
        if not path.exists():
            write_frames(path, frames)
        data[name] = str(path)
    for run in sorted(folder.glob("train*"), reverse=True):
        if (run / "model.asnq").exists():
            return run / "model.asnq"
        try:
            config = campaign.training(data=data, output=str(run), start=start)
            return _path(resume_run(run, config, quiet=True, say=lambda text: None))
        except ConfigError:  # killed before it had begun: a new run
            continue
    config = campaign.training(data=data, output=str(folder / "train"), start=start)
    return _path(fit(None, config))


def _path(potential: Any) -> Path:
    if potential.path is None:
        raise RuntimeError("Training gave a potential without a file.")
    return Path(potential.path)
