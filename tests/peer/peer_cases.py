"""The configurations on which asenequip and nequip-allegro are held against each other, and how."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

LIMITS = {"energy_per_atom": 1e-10, "forces": 1e-9, "stress": 1e-11}
"""Largest deviation in float64: eV per atom, eV/Angstrom, eV/Angstrom^3; absolute."""

LARGEST_FORCE = 100.0
"""eV/Angstrom: beyond what any structure worth computing has."""

TYPES = ("Li", "P", "S", "Cl")
BESSEL = "allegro.nn.TwoBodyBesselScalarEmbed"
SPLINE = "allegro.nn.TwoBodySplineScalarEmbed"
PAIR_CUTOFFS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"Li": 3.1, "P": {"S": 4.3, "Li": 2.7}},
    {"Cl": {"Cl": 2.3, "S": 3.7, "P": 4.9, "Li": 4.1}},
)
NEIGHBORS: tuple[Any, ...] = (20.0, {"Li": 23.0, "P": 11.5, "S": 12.0, "Cl": 13.0})
NONLINEARITIES = ("silu", "mish", "gelu", "ssp", "tanh", "sigmoid", "softplus", None, "None")
MLPS = ("scalar_embed_mlp", "allegro_mlp", "readout_mlp")
ZBL = {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": list(TYPES)}
LJ = {
    "_target_": "nequip.nn.pair_potential.LennardJones",
    "lj_sigma": 1.1,
    "lj_epsilon": 0.07,
    "lj_delta": 0.05,
}
PAIRS: tuple[dict[str, Any] | None, ...] = (
    None,
    ZBL,
    {**ZBL, "polynomial_cutoff_p": 9},
    LJ,
    {**LJ, "lj_style": "lj_repulsive_only", "lj_exponent": 5.0},
    {**LJ, "lj_style": "repulsive", "lj_exponent": 2.5, "polynomial_cutoff_p": 4},
)


@dataclass(frozen=True)
class Case:
    """One configuration.

    Attributes
    ----------
    name : str
    options : dict
        Arguments of the reference's model builder.
    changed : tuple of str
        What is drawn anew after building: "frequencies" of the Bessel basis, "pair" tables.
    seed : int
        Of the weights, of the changes and of the structure.
    """

    name: str
    options: dict[str, Any]
    changed: tuple[str, ...] = ()
    seed: int = 0
    dtype: str = field(default="float64")


def base(**options: Any) -> dict[str, Any]:
    """Arguments of a small model, with ``options`` on top."""
    return {
        "r_max": 5.0,
        "type_names": list(TYPES),
        "l_max": 2,
        "parity": True,
        "num_layers": 2,
        "num_scalar_features": 8,
        "num_tensor_features": 4,
        "radial_chemical_embed": {"_target_": BESSEL},
        "scalar_embed_mlp_hidden_layers_width": 12,
        "allegro_mlp_hidden_layers_width": 10,
        "readout_mlp_hidden_layers_width": 6,
        "avg_num_neighbors": NEIGHBORS[1],
        "per_type_energy_scales": dict(zip(TYPES, (0.7, 1.3, 0.9, 1.1), strict=True)),
        "per_type_energy_shifts": dict(zip(TYPES, (-1.0, 2.5, 0.3, 4.0), strict=True)),
        **options,
    }


def grid_cases() -> Iterator[Case]:
    """Every l_max, parity, number of layers, coupling and radial basis; all else is drawn for each."""
    axes = product(range(5), (True, False), (1, 2, 3), (True, False), (BESSEL, SPLINE))
    for seed, (l_max, parity, layers, coupled, radial) in enumerate(axes):
        draw = random.Random(seed)
        options = base(
            l_max=l_max,
            parity=parity,
            num_layers=layers,
            tp_path_channel_coupling=coupled,
            radial_chemical_embed={"_target_": radial, **_radial_options(radial, draw)},
            per_edge_type_cutoff=draw.choice(PAIR_CUTOFFS),
            weight_individual_irreps=draw.random() < 0.6,
            avg_num_neighbors=draw.choice(NEIGHBORS),
            forward_normalize=draw.random() < 0.6,
            pair_potential=draw.choice(PAIRS),
            radial_chemical_embed_dim=draw.choice((None, 6, 14)),
        )
        for mlp in MLPS:
            options[f"{mlp}_hidden_layers_depth"] = draw.choice((0, 1, 2))
            options[f"{mlp}_nonlinearity"] = draw.choice(NONLINEARITIES)
        kind = radial[len("allegro.nn.TwoBody") : -len("ScalarEmbed")].lower()
        name = f"l{l_max}-{'both' if parity else 'natural'}-L{layers}-{'coupled' if coupled else 'shared'}-{kind}"
        yield Case(name, options, ("frequencies", "pair") if draw.random() < 0.5 else (), seed)


def _radial_options(radial: str, draw: random.Random) -> dict[str, Any]:
    if radial == BESSEL:
        return {
            "num_bessels": draw.choice((4, 8, 11)),
            "bessel_trainable": draw.random() < 0.5,
            "polynomial_cutoff_p": draw.choice((4, 6, 9)),
        }
    return {"num_splines": draw.choice((10, 16)), "spline_span": draw.choice((4, 7, 10))}


def single_cases() -> Iterator[Case]:
    """One option at a time away from the base model."""
    for mlp, nonlinearity, depth in product(MLPS, NONLINEARITIES, (1, 2)):
        changes = {f"{mlp}_nonlinearity": nonlinearity, f"{mlp}_hidden_layers_depth": depth}
        yield Case(f"{mlp}-{nonlinearity!r}-depth{depth}", base(**changes))
    for mlp in MLPS:
        yield Case(f"{mlp}-depth0", base(**{f"{mlp}_hidden_layers_depth": 0}))
    for k, cutoffs in enumerate(PAIR_CUTOFFS):
        yield Case(f"pair-cutoffs-{k}", base(per_edge_type_cutoff=cutoffs))
    for k, pair in enumerate(PAIRS[1:]):
        for changed in ((), ("pair",)):
            cutoffs = PAIR_CUTOFFS[k % 3]
            yield Case(
                f"pair-{k}{'-tables' * bool(changed)}", base(pair_potential=pair, per_edge_type_cutoff=cutoffs), changed
            )
    for name in ("sigma", "epsilon", "delta"):
        yield Case(f"trainable-{name}", base(pair_potential={**LJ, f"lj_{name}_trainable": True}), ("pair",))
    yield Case("forward-normalize-off", base(forward_normalize=False))
    yield Case("shared-irreps", base(weight_individual_irreps=False, num_layers=3))
    yield Case(
        "trained-frequencies",
        base(radial_chemical_embed={"_target_": BESSEL, "bessel_trainable": True}),
        ("frequencies",),
    )
    yield Case("one-neighbour-number", base(avg_num_neighbors=NEIGHBORS[0]))
    yield Case("no-scales", base(per_type_energy_scales=None))
    yield Case("no-shifts", base(per_type_energy_shifts=None))
    yield Case("neither", base(per_type_energy_scales=None, per_type_energy_shifts=None))
    yield Case("one-scale", base(per_type_energy_scales=1.7, per_type_energy_shifts=-2.0))
    trainable = {"per_type_energy_scales_trainable": True, "per_type_energy_shifts_trainable": True}
    yield Case("trainable-scales", base(per_type_energy_scales=1.7, **trainable))
    alone = {
        "type_names": ["S"],
        "per_type_energy_scales": 1.2,
        "per_type_energy_shifts": 0.5,
        "avg_num_neighbors": 30.0,
    }
    yield Case("one-type", base(**alone))
    yield Case("one-channel", base(num_tensor_features=1, num_scalar_features=2))


def all_cases() -> list[Case]:
    """Every configuration."""
    return [*grid_cases(), *single_cases()]


def build_reference(case: Case) -> Any:
    """The reference's model of a case."""
    import torch
    from allegro.model import AllegroModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    model = AllegroModel(seed=case.seed, model_dtype=case.dtype, **case.options)
    generator = torch.Generator().manual_seed(case.seed)

    def uniform(like: Any, low: float, high: float) -> Any:
        return low + (high - low) * torch.rand(like.shape, generator=generator, dtype=like.dtype)

    parts = model.model.func
    with torch.no_grad():
        if "frequencies" in case.changed and hasattr(parts.radial_chemical_embed, "bessel_encode"):
            frequencies = parts.radial_chemical_embed.bessel_encode.bessel_weights
            frequencies.mul_(uniform(frequencies, 0.9, 1.1))
        if not hasattr(getattr(parts, "pair_potential", None), "sigma"):
            return model
        repair_lennard_jones(parts.pair_potential)
        if "pair" in case.changed:
            # neither symmetric nor all positive: only the upper half counts, and a negative entry acts as zero
            ranges = {"sigma": (0.8, 1.3), "epsilon": (-0.02, 0.1), "delta": (-0.05, 0.1)}
            for name, (low, high) in ranges.items():
                table = getattr(parts.pair_potential, name)
                table.copy_(uniform(table, low, high))
    return model


def repair_lennard_jones(pair: Any) -> None:
    """Make the reference's Lennard-Jones term run.

    nequip 0.19.1 stores edge lengths as (z, 1), from which this term makes (z, 1, 1) and multiplies it with parameters
    of shape (z,): it stops with a shape error on every structure. Here it is given lengths (z,) and parameters (z, 1);
    its arithmetic is its own.
    """
    whole, pick = pair.forward, pair._param.forward

    def forward(data: dict[str, Any]) -> dict[str, Any]:
        lengths = data["edge_lengths"]
        data["edge_lengths"] = lengths.reshape(-1)
        data = whole(data)
        data["edge_lengths"] = lengths
        return data

    pair.forward = forward
    pair._param.forward = lambda table, first, second: pick(table, first, second).unsqueeze(-1)


def deviations(case: Case) -> dict[str, float]:
    """Largest differences between the two packages for a case, and ``largest_force``, the reference's.

    A random model may have forces of 10^5 eV/Angstrom, of which float64 keeps 10^-11 at best: the reference's energy
    scales are lowered until no force is over `LARGEST_FORCE`. The reference's hyperparameters and weights are read as
    a conversion reads them; its edges come from a search over all images, ours from our neighbour list.
    """
    import numpy as np

    from asenequip.convert.extract.main import extract
    from asenequip.convert.run import build, compare, frame_atoms

    description, weights = extract(build_reference(case), seed=case.seed)
    force = float(np.abs(description["reference"]["forces"]).max())
    if force > LARGEST_FORCE:
        reference = build_reference(case)
        reference.model.func.per_type_energy_scale_shift.scales.data.mul_(LARGEST_FORCE / (2.0 * force))
        description, weights = extract(reference, seed=case.seed)
        force = float(np.abs(description["reference"]["forces"]).max())
    model = build(description, weights)
    off = compare(model, frame_atoms(description, model.spec.type_names), description)
    return {**off, "largest_force": force}
