"""A small network and a small structure that many tests share."""

from __future__ import annotations

import torch
from ase import Atoms

from asenequip.model.allegro import Allegro
from asenequip.model.spec import AllegroSpec


def small_spec(**options: object) -> AllegroSpec:
    """A network small enough for tests: two types, cutoff 3.4 Angstrom, widths below ten."""
    values: dict[str, object] = {
        "type_names": ("Cu", "O"),
        "cutoff": 3.4,
        "num_scalar_features": 8,
        "num_tensor_features": 4,
        "two_body_width": 9,
        "latent_width": 10,
        "readout_width": 7,
        "avg_num_neighbors": (11.0, 7.0),
    }
    return AllegroSpec(**{**values, **options})  # type: ignore[arg-type]


def small_model(seed: int = 0, **options: object) -> Allegro:
    """A network of `small_spec` whose energy scales, shifts and frequencies are not their trivial start values."""
    model = Allegro(small_spec(**options), seed=seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    with torch.no_grad():
        for tensor in (model.scales, model.shifts):
            tensor += 0.5 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    return model


def small_atoms(seed: int = 0) -> Atoms:
    """Five atoms in a skewed cell smaller than the cutoff, some of them outside of it."""
    import numpy as np

    rng = np.random.default_rng(seed)
    cell = np.array([[3.1, 0.2, 0.0], [0.7, 3.3, 0.1], [-0.4, 0.5, 4.2]])
    grid = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0.2, 0.7, 1.5]])
    return Atoms("Cu2OCuO", positions=grid @ cell + rng.uniform(-0.15, 0.15, (5, 3)), cell=cell, pbc=True)
