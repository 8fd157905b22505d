"""Training the members of a deep ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from asenequip.errors import parameter_error
from asenequip.train.config import Config, parse_config


def train_ensemble(frames: Sequence[Atoms] | None, config: Config | Mapping[str, Any], members: int = 4) -> list[Path]:
    """Train several potentials that differ by their start weights and the order of the frames.

    Parameters
    ----------
    frames : sequence of ase.Atoms, optional
        As for `asenequip.train.fit`; all members share one division into training and validation frames.
    config : Config or mapping
        Settings; member k has the seed ``seed + k`` and the output ``output/member_k``.
    members : int
        2 or more.

    Returns
    -------
    list of Path
        For `asenequip.uncertainty.Ensemble`.
    """
    from asenequip.train.run import fit

    if not isinstance(members, int) or members < 2:
        raise parameter_error("members", "train_ensemble", "an integer >= 2", members)
    config = config if isinstance(config, Config) else parse_config(config)
    paths = []
    for k in range(members):
        changes = {"seed": config.seed + k, "output": str(Path(config.output) / f"member_{k}")}
        potential = fit(frames, config.model_copy(update=changes))
        if potential.path is not None:
            paths.append(potential.path)
    return paths
