"""Pair potentials: an energy per directed edge, half of the pair's, added to the centre."""

from __future__ import annotations

import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from asenequip.model.precision import KeepsFloat64
from asenequip.model.radial import envelope
from asenequip.model.spec import AllegroSpec, PairSpec

COULOMB = 14.399645
"""e^2 / (4 pi epsilon_0), eV Angstrom."""


class ZBL(KeepsFloat64):
    """Screened nuclear repulsion of Ziegler, Biersack and Littmark (1985): 1/2 k Z_c Z_n / d psi(d / a) f(x).

    a = 0.46850 / (Z_c^0.23 + Z_n^0.23) Angstrom; psi is the universal screening function; f the polynomial envelope.
    """

    float64 = ("numbers",)
    numbers: Tensor
    _AMPLITUDE = (0.02817, 0.28022, 0.50986, 0.18175)
    _DECAY = (0.20162, 0.40290, 0.94229, 3.19980)

    def __init__(self, spec: AllegroSpec, pair: PairSpec) -> None:
        super().__init__()
        self.exponent = pair.envelope_exponent
        numbers = torch.tensor([atomic_numbers[s] for s in spec.type_names], dtype=torch.float64)
        self.register_buffer("numbers", numbers, persistent=False)

    def forward(self, distances: Tensor, x: Tensor, center_types: Tensor, neighbor_types: Tensor) -> Tensor:
        """Distances (z,) Angstrom, reduced distances (z,), types (z,), (z,) -> (z,) eV."""
        z_c, z_n = self.numbers[center_types], self.numbers[neighbor_types]
        reduced = distances * (z_c**0.23 + z_n**0.23) / 0.46850
        screening = sum(a * torch.exp(-d * reduced) for a, d in zip(self._AMPLITUDE, self._DECAY, strict=True))
        return 0.5 * COULOMB * z_c * z_n / distances * screening * envelope(x, self.exponent)


class LennardJones(KeepsFloat64):
    """Lennard-Jones and related forms; sigma, epsilon, delta are (T, T) tables, symmetric, the upper half counts.

    With s = (sigma / (d - delta))^exponent, per directed edge and times the envelope:
    "lj": 2 epsilon (s^2 - s); "lj_repulsive_only": that plus epsilon for d < 2^(1/exponent) + delta and 0 beyond;
    "repulsive": 1/2 epsilon (sigma (d - delta))^-exponent. Negative parameters act as zero. These are the reference
    implementation's forms, so that its weights can be used; "lj_repulsive_only" has a jump where it ends, which makes
    it unfit for new potentials (a smooth repulsion: "zbl" or "repulsive").
    """

    float64 = ("sigma", "epsilon", "delta")
    sigma: Tensor
    epsilon: Tensor
    delta: Tensor

    def __init__(self, spec: AllegroSpec, pair: PairSpec) -> None:
        super().__init__()
        self.pair = pair
        shape = (spec.num_types, spec.num_types)
        for name in ("sigma", "epsilon", "delta"):
            table = torch.full(shape, float(getattr(pair, name)), dtype=torch.float64)
            setattr(self, name, nn.Parameter(table, requires_grad=name in pair.trainable))

    @staticmethod
    def _pick(table: Tensor, center_types: Tensor, neighbor_types: Tensor) -> Tensor:
        low, high = torch.minimum(center_types, neighbor_types), torch.maximum(center_types, neighbor_types)
        return torch.relu(table[low, high])

    def forward(self, distances: Tensor, x: Tensor, center_types: Tensor, neighbor_types: Tensor) -> Tensor:
        """Distances (z,) Angstrom, reduced distances (z,), types (z,), (z,) -> (z,) eV."""
        sigma, epsilon, delta = (
            self._pick(table, center_types, neighbor_types) for table in (self.sigma, self.epsilon, self.delta)
        )
        exponent, cut = self.pair.exponent, envelope(x, self.pair.envelope_exponent)
        gap = distances - delta
        if self.pair.style == "repulsive":
            return 0.5 * epsilon * (sigma * gap) ** -exponent * cut
        power = (sigma / gap) ** exponent
        energy = 2.0 * epsilon * (power * power - power)
        if self.pair.style == "lj_repulsive_only":
            energy = (energy + epsilon) * (distances < 2.0 ** (1.0 / exponent) + delta)
        return energy * cut


def pair_potential(spec: AllegroSpec) -> ZBL | LennardJones | None:
    """The pair potential that ``spec.pair`` describes."""
    if spec.pair is None:
        return None
    return (ZBL if spec.pair.kind == "zbl" else LennardJones)(spec, spec.pair)
