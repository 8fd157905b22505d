"""Every hyperparameter of an Allegro potential, in one validated, immutable place."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asenequip.errors import parameter_error

NONLINEARITIES = ("silu", "mish", "gelu", "ssp", "tanh", "sigmoid", "softplus", "none")


@dataclass(frozen=True)
class PairSpec:
    """A pair potential added to the network's energy.

    Attributes
    ----------
    kind : {"zbl", "lj"}
        Ziegler-Biersack-Littmark screened repulsion, or Lennard-Jones.
    envelope_exponent : int
        Exponent p of the polynomial envelope that takes the potential to zero at the cutoff.
    style : {"lj", "lj_repulsive_only", "repulsive"}
        Form of the Lennard-Jones term; see `asenequip.model.pair.LennardJones`.
    exponent : float
        Exponent of the attractive part (12-6: 6) or of the pure repulsion.
    sigma, epsilon, delta : float
        Start values for every pair of types: length (Angstrom), energy (eV), shift of the distance (Angstrom).
    trainable : tuple of str
        Which of "sigma", "epsilon", "delta" are trained.
    """

    kind: str = "zbl"
    envelope_exponent: int = 6
    style: str = "lj"
    exponent: float = 6.0
    sigma: float = 1.0
    epsilon: float = 1.0
    delta: float = 0.0
    trainable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "trainable", tuple(self.trainable))
        _choice(self, "kind", ("zbl", "lj"))
        _choice(self, "style", ("lj", "lj_repulsive_only", "repulsive"))
        _integer(self, "envelope_exponent", 2, 64)
        for name in ("exponent", "sigma", "epsilon", "delta"):
            _number(self, name, -math.inf if name == "delta" else 0.0)
        unknown = set(self.trainable) - {"sigma", "epsilon", "delta"}
        if unknown:
            raise parameter_error("trainable", "PairSpec", 'a subset of "sigma", "epsilon", "delta"', self.trainable)


@dataclass(frozen=True)
class AllegroSpec:
    """Hyperparameters of an Allegro potential (Musaelian et al., Nat. Commun. 14, 579 (2023)).

    Attributes
    ----------
    type_names : tuple of str
        Chemical symbols, one per type; their order is that of every per-type table.
    cutoff : float
        Largest cutoff radius, Angstrom.
    pair_cutoffs : tuple of tuples of float, optional
        Cutoff of each ordered pair of types [centre][neighbour], Angstrom, none above ``cutoff``.
    l_max : int
        Largest order of the spherical harmonics, 0-4.
    parity : bool
        Keep tensors of both parities between layers (makes no difference for two layers or fewer).
    num_layers, num_scalar_features, num_tensor_features : int
        Layers L, scalar features S, tensor channels U.
    radial : {"bessel", "spline"}
        Two-body radial basis.
    num_bessels, bessel_trainable, envelope_exponent
        Bessel basis: size, trainable frequencies, exponent p of the polynomial envelope.
    num_splines, spline_span
        Spline basis: grid size, overlapping functions.
    radial_dim : int, optional
        Width of the radial-chemical embedding; ``num_scalar_features`` if None. Even for "bessel".
    two_body_depth, two_body_width, two_body_nonlinearity
        Hidden layers of the two-body scalar MLP.
    latent_depth, latent_width, latent_nonlinearity
        Hidden layers of each Allegro layer's MLP.
    readout_depth, readout_width, readout_nonlinearity
        Hidden layers of the edge-energy MLP.
    path_channel_coupling : bool
        Path weights per channel (True) or shared by the channels.
    individual_irrep_weights : bool
        Environment weights per irrep (True) or shared by the irreps.
    forward_normalize : bool
        Scale linear layers to keep the variance of activations (True) or of gradients.
    avg_num_neighbors : tuple of float
        Mean number of neighbours, one per type.
    scales_trainable, shifts_trainable : bool
        Whether the per-type energy scales and shifts are trained.
    pair : PairSpec, optional
        Pair potential added after scale and shift.
    """

    type_names: tuple[str, ...]
    cutoff: float
    pair_cutoffs: tuple[tuple[float, ...], ...] | None = None
    l_max: int = 2
    parity: bool = True
    num_layers: int = 2
    num_scalar_features: int = 64
    num_tensor_features: int = 32
    radial: str = "bessel"
    num_bessels: int = 8
    bessel_trainable: bool = False
    envelope_exponent: int = 6
    num_splines: int = 16
    spline_span: int = 12
    radial_dim: int | None = None
    two_body_depth: int = 1
    two_body_width: int = 64
    two_body_nonlinearity: str = "silu"
    latent_depth: int = 1
    latent_width: int = 64
    latent_nonlinearity: str = "silu"
    readout_depth: int = 1
    readout_width: int = 32
    readout_nonlinearity: str = "silu"
    path_channel_coupling: bool = True
    individual_irrep_weights: bool = True
    forward_normalize: bool = True
    avg_num_neighbors: tuple[float, ...] = ()
    scales_trainable: bool = False
    shifts_trainable: bool = False
    pair: PairSpec | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "type_names", tuple(self.type_names))
        num_types = len(self.type_names)
        neighbors = self.avg_num_neighbors or (1.0,) * num_types
        set_(self, "avg_num_neighbors", tuple(float(v) for v in neighbors))
        if self.pair_cutoffs is not None:
            set_(self, "pair_cutoffs", tuple(tuple(float(v) for v in row) for row in self.pair_cutoffs))
        self._validate_types()
        _number(self, "cutoff", 0.0)
        self._validate_tables(num_types)
        _integer(self, "l_max", 0, 4)
        for name in ("num_layers", "num_scalar_features", "num_tensor_features", "num_bessels", "num_splines"):
            _integer(self, name, 1)
        _integer(self, "envelope_exponent", 2, 64)
        _integer(self, "spline_span", 1, self.num_splines)
        _choice(self, "radial", ("bessel", "spline"))
        for mlp in ("two_body", "latent", "readout"):
            _integer(self, f"{mlp}_depth", 0)
            _integer(self, f"{mlp}_width", 1)
            _choice(self, f"{mlp}_nonlinearity", NONLINEARITIES)
        if self.radial_dim is not None:
            _integer(self, "radial_dim", 1)
        if self.radial == "bessel" and self.embedding_dim % 2:
            raise parameter_error(
                "radial_dim", "AllegroSpec", "an even integer for a Bessel embedding", self.embedding_dim
            )
        if self.pair is not None and not isinstance(self.pair, PairSpec):
            raise parameter_error("pair", "AllegroSpec", "a PairSpec or None", self.pair)

    def _validate_types(self) -> None:
        from ase.data import atomic_numbers

        names = self.type_names
        if not names or len(set(names)) != len(names):
            raise parameter_error("type_names", "AllegroSpec", "a non-empty sequence of different symbols", names)
        wrong = [n for n in names if n not in atomic_numbers or n == "X"]
        if wrong:
            raise parameter_error("type_names", "AllegroSpec", 'chemical symbols such as "Li"', wrong)

    def _validate_tables(self, num_types: int) -> None:
        neighbors = self.avg_num_neighbors
        if len(neighbors) != num_types or not all(0 < v < math.inf for v in neighbors):
            raise parameter_error("avg_num_neighbors", "AllegroSpec", f"{num_types} positive numbers", neighbors)
        table = self.pair_cutoffs
        if table is not None and (
            len(table) != num_types
            or any(len(row) != num_types for row in table)
            or not all(0 < v <= self.cutoff for row in table for v in row)
        ):
            wanted = f"a {num_types} x {num_types} table of numbers in (0, cutoff = {self.cutoff:g}]"
            raise parameter_error("pair_cutoffs", "AllegroSpec", wanted, table)

    @property
    def num_types(self) -> int:
        """Number of atom types T."""
        return len(self.type_names)

    @property
    def embedding_dim(self) -> int:
        """Width of the radial-chemical embedding."""
        return self.num_scalar_features if self.radial_dim is None else self.radial_dim

    @property
    def num_harmonics(self) -> int:
        """Number of components D = (l_max + 1)^2."""
        return (self.l_max + 1) ** 2

    @property
    def num_env_weights(self) -> int:
        """Environment weights per edge and layer: U R, or U where irreps share one."""
        return self.num_tensor_features * (self.l_max + 1 if self.individual_irrep_weights else 1)

    def cutoff_table(self) -> tuple[tuple[float, ...], ...]:
        """Cutoff of every ordered pair of types [centre][neighbour], Angstrom."""
        return self.pair_cutoffs or ((self.cutoff,) * self.num_types,) * self.num_types

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able form; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AllegroSpec:
        """Build a spec from its plain form; unknown names are refused.

        Raises
        ------
        ValueError
            For a name that is no hyperparameter, or a value outside its range.
        """
        fields = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise ValueError(f"AllegroSpec has no '{name}' parameter.{did_you_mean(name, sorted(fields))}")
        pair = values.get("pair")
        if isinstance(pair, Mapping):
            values = {**values, "pair": PairSpec(**pair)}
        return cls(**values)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A closing question that names the nearest known word, or nothing."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def _check(owner: object, name: str, ok: Callable[[Any], bool], wanted: str) -> None:
    value = getattr(owner, name)
    if not ok(value):
        raise parameter_error(name, type(owner).__name__, wanted, value)


def _integer(owner: object, name: str, low: int, high: int | None = None) -> None:
    wanted = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"

    def ok(v: Any) -> bool:
        return isinstance(v, int) and not isinstance(v, bool) and v >= low and (high is None or v <= high)

    _check(owner, name, ok, wanted)


def _number(owner: object, name: str, above: float) -> None:
    def ok(v: Any) -> bool:
        return isinstance(v, (int, float)) and not isinstance(v, bool) and above < v <= sys.float_info.max

    _check(owner, name, ok, f"a float in ({above:g}, inf)")


def _choice(owner: object, name: str, choices: Sequence[str]) -> None:
    _check(owner, name, lambda v: v in choices, "one of " + ", ".join(f'"{c}"' for c in choices))
