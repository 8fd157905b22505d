"""Starting from a potential that exists: other data, new species, parts held fixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from asenequip.artifact import ArtifactError, load_artifact
from asenequip.model.allegro import Allegro
from asenequip.model.spec import AllegroSpec
from asenequip.train.config import Config, ConfigError, Model
from asenequip.train.data import Sample
from asenequip.train.metrics import predict
from asenequip.train.statistics import least_squares_shifts
from asenequip.train.table import FrameTable

_NOVELTY = 0.1
"""Part of a fresh random embedding that a new species gets on top of the mean of the old ones, to tell it apart."""


def load_start(path: str) -> Allegro:
    """The model that training starts from, in float64, every parameter trainable that its spec says is.

    Raises
    ------
    ConfigError
        If the file is missing or damaged.
    """
    try:
        potential = load_artifact(path, dtype="float64")
    except (FileNotFoundError, ArtifactError) as error:
        raise ConfigError(f"start: {error}") from None
    model = Allegro(potential.spec, seed=0)
    model.load_state_dict(potential.model.state_dict())
    return model


def adopt_model(config: Config, spec: AllegroSpec) -> Config:
    """The settings with the hyperparameters of the potential that training starts from.

    Raises
    ------
    ConfigError
        If the settings ask for another value of a hyperparameter.
    """
    free = ("species", "energy_shifts", "energy_scales", "scales_trainable", "shifts_trainable", "pair", "pair_cutoffs")
    found = {name: getattr(spec, name) for name in Model.model_fields if name not in free}
    wanted = {name: getattr(config.model, name) for name in config.model.model_fields_set if name in found}
    wrong = [f"model.{name}: {value} (there: {found[name]})" for name, value in wanted.items() if value != found[name]]
    if wrong:
        raise ConfigError(
            f"The potential of start has other hyperparameters than {', '.join(wrong)}.\n"
            "Leave them out: they come from the file."
        )
    return config.model_copy(update={"model": config.model.model_copy(update=found)})


def extend_species(model: Allegro, species: Sequence[str], neighbors: Sequence[float], seed: int) -> Allegro:
    """The same potential with further types behind its own; on the old types its results do not change.

    Parameters
    ----------
    model : Allegro
        float64.
    species : sequence of str
        Those of the new data; those the model knows are passed over.
    neighbors : sequence of float
        Mean number of neighbours of each of ``species``.
    seed : int
        Of the new types' embeddings, which are the mean of the old ones and a little of their own.

    Returns
    -------
    Allegro
    """
    spec = model.spec
    new = [name for name in species if name not in spec.type_names]
    if not new:
        return model
    count = dict(zip(species, neighbors, strict=True))
    table = spec.pair_cutoffs
    if table is not None:
        size = spec.num_types + len(new)
        wide = np.full((size, size), spec.cutoff)
        wide[: spec.num_types, : spec.num_types] = table
        table = tuple(map(tuple, wide.tolist()))
    extended = Allegro(
        dataclasses.replace(
            spec,
            type_names=(*spec.type_names, *new),
            avg_num_neighbors=(*spec.avg_num_neighbors, *(count[name] for name in new)),
            pair_cutoffs=table,
        ),
        seed=seed,
    )
    old, state = model.state_dict(), extended.state_dict()
    for name, target in state.items():
        state[name] = _widen(name, old[name], target, spec.num_types)
    extended.load_state_dict(state)
    return extended


def _widen(name: str, old: torch.Tensor, fresh: torch.Tensor, num_types: int) -> torch.Tensor:
    """A tensor of the old model in the shape of the new one; ``fresh`` holds start values."""
    if old.shape == fresh.shape:
        return old
    if name in ("scales", "shifts", "radial.center", "radial.neighbor"):
        mean = old.mean(dim=0, keepdim=True)
        added = fresh[num_types:]
        novelty = 0.0 * added if old.dim() == 1 else _NOVELTY * added
        return torch.cat([old, mean + novelty])
    total = round(fresh.shape[0] ** 0.5) if name == "radial.coefficients" else fresh.shape[0]
    rest = old.shape[1:] if name == "radial.coefficients" else old.shape[2:]
    square, pairs = fresh.clone().view(total, total, *rest), old.view(num_types, num_types, *rest)
    if name == "radial.coefficients":
        square = pairs.mean(dim=(0, 1)) + _NOVELTY * square
    square[:num_types, :num_types] = pairs
    return square.view(fresh.shape)


def shift_to_data(model: Allegro, samples: Sequence[Sample], table: FrameTable, offsets: np.ndarray) -> None:
    """Move the energy shifts so that the energies of new data are met on average, in place.

    Least squares of the present errors over compositions; see `least_squares_shifts`.
    """
    found = np.array([p.energy for p in predict(model, samples, offsets)])
    change = least_squares_shifts(table.atoms, table.energies - found)
    with torch.no_grad():
        model.shifts.add_(torch.from_numpy(change).to(model.shifts.device))


def freeze(model: Allegro, prefixes: Sequence[str]) -> None:
    """Hold the parameters fixed whose names begin with one of ``prefixes``, such as "two_body".

    Raises
    ------
    ConfigError
        If a prefix matches nothing, or nothing is left to train.
    """
    names: dict[str, Any] = dict(model.named_parameters())
    for prefix in prefixes:
        matched = [name for name in names if name == prefix or name.startswith(f"{prefix}.")]
        if not matched:
            known = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise ConfigError(f"training.freeze: the model has no part '{prefix}'. Its parts are {known}.")
        for name in matched:
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise ConfigError("training.freeze leaves nothing to train.")
