"""All analyses of an interface trajectory in one pass over its frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from asenequip.errors import parameter_error
from asenequip.interface.build import ELECTRODE, ELECTROLYTE
from asenequip.interface.creep import Creep, CreepResult
from asenequip.interface.diffusion import Diffusion, DiffusionResult
from asenequip.interface.environments import ARGYRODITE, Environments, Rule
from asenequip.interface.growth import Fit, fit_growth
from asenequip.interface.phases import Phase, Phases, make_references
from asenequip.interface.profiles import Fronts, ProfileResult, Profiles, find_fronts, interphase_thickness
from asenequip.interface.reactions import BondResult, Bonds, PopulationResult, Populations
from asenequip.interface.snapshots import Grouping, Snapshot, by_layer, stream
from asenequip.interface.structure import Order, OrderResult, Radial, RadialResult

REFERENCES = ("Li", "Li2S", "Li3P", "LiCl", "Li6PS5Cl")
"""Crystals that classes are compared with, unless others are named."""

LARGE = 100_000
"""Atoms above which classes are looked at less often, and fewer time origins are kept."""


@dataclass(frozen=True)
class Choices:
    """What is analysed, and how finely.

    Attributes
    ----------
    rules : sequence of Rule, optional
        Classes of atoms by bonds: those of lithium thiophosphates where P and S occur, else the elements. Not used
        where ``classes`` is given.
    classes : callable, optional
        Another grouping, such as `asenequip.interface.environments.by_cluster`.
    electrode, electrolyte : sequence of str, optional
        Names of the classes whose fronts bound the interphase.
    bonds : sequence of (str, str, float, float)
        Arguments of `asenequip.interface.reactions.Bonds`.
    references : sequence of str
        Names of crystals; those whose elements do not occur are left out.
    carriers : mapping of str to float
        Charges of the mobile ions, for the conductivity.
    reference : "all", "none" or sequence of str
        What the drift is taken from; see `asenequip.interface.snapshots.stream`.
    bins : int
        Of the profiles.
    smooth : float
        See `asenequip.interface.profiles.find_fronts`, Angstrom.
    lags : int, optional
        Longest time difference of diffusion in frames; a 24th of the trajectory unless given.
    layer : float
        Half the width of the layers about the interfaces in which diffusion is told apart, Angstrom.
    structure_every : int
        Frames between two looks at structure: radial distribution, order, phases, bonds.
    classes_every : int, optional
        Frames between two looks at classes; every frame below 100,000 atoms, else as for structure.
    plane : float
        Width of the layers whose creep is followed, Angstrom.
    nonaffine : float
        Radius of the surroundings whose non-affine motion is followed, Angstrom; 0, and large cells, leave it out.
    cutoff : float
        Of the radial distribution, Angstrom.
    skip : float
        Share of the trajectory at the start that is left out of growth: heating, relaxing.
    seed : int
        Of the samples of centres.
    """

    rules: Sequence[Rule] | None = None
    classes: Grouping | None = None
    electrode: Sequence[str] | None = None
    electrolyte: Sequence[str] | None = None
    bonds: Sequence[tuple[str, str, float, float]] = (("P", "S", 2.6, 3.0),)
    references: Sequence[str] = REFERENCES
    carriers: Mapping[str, float] = field(default_factory=lambda: {"Li": 1.0})
    reference: str | Sequence[str] = "all"
    bins: int = 100
    smooth: float = 1.5
    lags: int | None = None
    layer: float = 5.0
    structure_every: int = 10
    classes_every: int | None = None
    plane: float = 3.5
    nonaffine: float = 4.5
    cutoff: float = 6.0
    skip: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Analysis:
    """What the analyses found; None where the trajectory does not allow one.

    Attributes
    ----------
    choices : Choices
    first : ase.Atoms
        The first frame.
    frames : int
    times : (float, float)
        First and last, ps.
    temperature : float
        Mean kinetic temperature of the frames, K; NaN without velocities.
    volume : float
        Mean, Angstrom^3.
    largest_step : float
        Largest displacement of an atom between two frames, as a share of the smallest height of the cell.
    species, classes : ProfileResult
    fronts : dict of str to Fronts
        "electrode" and "electrolyte".
    thickness : (n_times, 2) float64, or None
        Of the interphase below and above the electrolyte, Angstrom.
    growth : dict of str to list of Fit
    diffusion, layers : DiffusionResult or None
    electrolyte_share : float
        Of the cell's volume, the layer "electrolyte" of ``layers``; 1 where there are no layers.
    radial : RadialResult
    order : OrderResult
    populations : PopulationResult
    bonds : dict of str to BondResult
    phases : list of Phase
    creep : CreepResult or None
    missing : list of str
        Why an analysis is not there.
    """

    choices: Choices
    first: Atoms
    frames: int
    times: tuple[float, float]
    temperature: float
    volume: float
    largest_step: float
    species: ProfileResult
    classes: ProfileResult
    fronts: dict[str, Fronts]
    thickness: np.ndarray | None
    growth: dict[str, list[Fit]]
    diffusion: DiffusionResult | None
    layers: DiffusionResult | None
    electrolyte_share: float
    radial: RadialResult
    order: OrderResult
    populations: PopulationResult
    bonds: dict[str, BondResult]
    phases: list[Phase]
    creep: CreepResult | None
    missing: list[str]


def analyse(
    frames: str | os.PathLike[str] | Iterable[Atoms],
    *,
    index: str = ":",
    interval: float | None = None,
    choices: Choices = Choices(),
    watch: Callable[[int], None] | None = None,
) -> Analysis:
    """Analyse a trajectory in one pass; the memory does not grow with its length.

    Parameters
    ----------
    frames : path or iterable of ase.Atoms
        Where the first frame has the tags of `build_interface`, layers and creep follow them.
    index, interval
        See `asenequip.interface.snapshots.stream`.
    choices : Choices
    watch : callable, optional
        Gets the number of frames done.

    Returns
    -------
    Analysis

    Raises
    ------
    ValueError
    """
    lags = choices.lags
    if lags is None:
        lags = max(3, count_frames(frames, index) // 24)
    work: _Work | None = None
    for snapshot in stream(frames, index=index, interval=interval, reference=choices.reference):
        if work is None:
            work = _Work(snapshot, choices, lags)
        work.add(snapshot)
        if watch is not None:
            watch(snapshot.index + 1)
    if work is None or work.frames < 8:
        raise parameter_error("frames", "analyse", "at least 8 frames", 0 if work is None else work.frames)
    return work.result()


def count_frames(frames: str | os.PathLike[str] | Iterable[Atoms], index: str = ":") -> int:
    """How many frames a file or list has; a file of text is read through once for it."""
    if not isinstance(frames, (str, os.PathLike)):
        if not isinstance(frames, Sized):
            raise parameter_error(
                "choices",
                "analyse",
                "with 'lags', where frames come from a generator",
                "lags=None",
                "Give Choices(lags=...).",
            )
        return len(frames)
    path = os.fspath(frames)
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file '{path}'. Check the path.")
    if path.endswith(".traj"):
        from ase.io.trajectory import Trajectory

        with Trajectory(path) as file:
            total = len(file)
        bounds = [int(part) if part else None for part in index.split(":")]
        return len(range(total)[slice(*bounds)])
    from ase.io import iread

    return sum(1 for _ in iread(path, index=index))


class _Work:
    """The analyses of one trajectory, fed together."""

    def __init__(self, first: Snapshot, choices: Choices, lags: int) -> None:
        self.choices, self.first, self.lags = choices, first.atoms.copy(), lags
        species = sorted(set(first.atoms.get_chemical_symbols()))
        self.grouping = choices.classes or Environments(_rules(choices, species))
        self.species, self.classes = Profiles(choices.bins), Profiles(choices.bins, grouping=self.grouping)
        large = len(first.atoms) > LARGE
        every = lags // 2 if large else None
        self.classes_every = choices.classes_every or (choices.structure_every if large else 1)
        self.diffusion = Diffusion(lags, every=every)
        edges = self._edges(first)
        self.electrolyte_share = 1.0 if edges is None else edges[2] - edges[1]
        names = ("lower interface", "electrolyte", "upper interface", "electrode")
        carriers = [symbol for symbol in choices.carriers if symbol in species] or species
        self.layers = None if edges is None else Diffusion(lags, every=every, grouping=by_layer(carriers, edges, names))
        self.radial = Radial(choices.cutoff, seed=choices.seed)
        self.order = Order(self.grouping, seed=choices.seed)
        self.populations = Populations(self.grouping)
        known = [name for name in choices.references if set(name_elements(name)) <= set(species)]
        self.phases = Phases(self.grouping, make_references(known), seed=choices.seed)
        pairs = [bond for bond in choices.bonds if {bond[0], bond[1]} <= set(species)]
        self.bonds = {f"{bond[0]}-{bond[1]}": Bonds(*bond) for bond in pairs}
        electrode = first.atoms.get_tags() == ELECTRODE
        self.creep = Creep(
            electrode if electrode.any() else None,
            width=choices.plane,
            block=max(3, lags),
            neighbours=0.0 if large else choices.nonaffine,
            every=choices.structure_every,
        )
        self.frames, self._kelvin, self._volume, self._step = 0, 0.0, 0.0, 0.0
        self._before: np.ndarray | None = None
        self._times = (first.time, first.time)

    def _edges(self, first: Snapshot) -> list[float] | None:
        """Borders of the layers about the interfaces, as shares of the cell; None without tags."""
        tags = first.atoms.get_tags()
        if set(np.unique(tags)) != {ELECTRODE, ELECTROLYTE}:
            return None
        heights = first.heights[tags == ELECTROLYTE]
        half = self.choices.layer
        edges = np.array([heights.min() - half, heights.min() + half, heights.max() - half, heights.max() + half])
        edges /= first.length
        return edges.tolist() if (np.diff(edges) > 0).all() and edges[0] >= 0 and edges[-1] <= 1 else None

    def add(self, snapshot: Snapshot) -> None:
        self._note(snapshot)
        due: list[Any] = [self.species, self.diffusion, self.layers, self.creep]
        if snapshot.index % self.classes_every == 0:
            due += [self.classes, self.populations]
        if snapshot.index % self.choices.structure_every == 0:
            due += [self.phases, self.radial, self.order, *self.bonds.values()]  # the widest search first
        for analysis in due:
            if analysis is not None:
                analysis.add(snapshot)

    def _note(self, snapshot: Snapshot) -> None:
        atoms = snapshot.atoms
        self.frames += 1
        self._times = (self._times[0], snapshot.time)
        self._kelvin += atoms.get_temperature() if atoms.has("momenta") else np.nan
        self._volume += atoms.get_volume()
        if self._before is not None:
            step = np.abs(snapshot.unwrapped - self._before).max()
            height = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0).max()
            self._step = max(self._step, float(step / height))
        self._before = snapshot.unwrapped

    def result(self) -> Analysis:
        missing: list[str] = []
        profile = self.classes.result()
        fronts, thickness = self._interphase(profile, missing)
        return Analysis(
            choices=self.choices,
            first=self.first,
            frames=self.frames,
            times=self._times,
            temperature=self._kelvin / self.frames,
            volume=self._volume / self.frames,
            largest_step=self._step,
            species=self.species.result(),
            classes=profile,
            fronts=fronts,
            thickness=thickness,
            growth=self._growth(profile, thickness, missing),
            diffusion=_try(self.diffusion, missing),
            layers=_try(self.layers, missing),
            electrolyte_share=self.electrolyte_share,
            radial=self.radial.result(),
            order=self.order.result(),
            populations=self.populations.result(),
            bonds={name: bond.result() for name, bond in self.bonds.items()},
            phases=self.phases.result(),
            creep=_try(self.creep, missing),
            missing=missing,
        )

    def _interphase(self, profile: ProfileResult, missing: list[str]) -> tuple[dict[str, Fronts], np.ndarray | None]:
        sides = {"electrode": self.choices.electrode, "electrolyte": self.choices.electrolyte}
        sides = {k: _default_side(k, profile.names, self.first) if v is None else v for k, v in sides.items()}
        fronts = {}
        for side, groups in sides.items():
            present = [name for name in groups or () if name in profile.names]
            if not present or not profile.series[:, [profile.names.index(n) for n in present]].any():
                missing.append(f"No front of the {side}: no atoms in its classes.")
                continue
            fronts[side] = find_fronts(profile, present, smooth=self.choices.smooth)
        if len(fronts) < 2:
            return fronts, None
        return fronts, interphase_thickness(fronts["electrode"], fronts["electrolyte"])

    def _growth(self, profile: ProfileResult, thickness: np.ndarray | None, missing: list[str]) -> dict[str, list[Fit]]:
        if thickness is None:
            return {}
        start = int(self.choices.skip * len(profile.times))
        times = profile.times[start:] - profile.times[start]
        if len(times) < 8:
            missing.append("No law of growth: fewer than eight stretches of time.")
            return {}
        sides = {"below": thickness[start:, 0], "above": thickness[start:, 1]}
        still = [side for side, series in sides.items() if np.ptp(series) < 1e-6]
        missing += [f"No law of growth {side} the electrolyte: the thickness did not change." for side in still]
        return {side: fit_growth(times, series) for side, series in sides.items() if side not in still}


def name_elements(formula: str) -> list[str]:
    """Elements of a formula."""
    from ase.formula import Formula

    return list(Formula(formula).count())


def _rules(choices: Choices, species: list[str]) -> Sequence[Rule]:
    if choices.rules is not None:
        return choices.rules
    return ARGYRODITE if {"P", "S"} <= set(species) else [Rule(symbol, symbol) for symbol in species]


def _default_side(side: str, names: list[str], first: Atoms) -> list[str]:
    """Classes of a side: metal and intact thiophosphate, or the elements that only this side has."""
    defaults = {"electrode": ["Li metal"], "electrolyte": ["P in PS4"]}
    if defaults[side][0] in names:
        return defaults[side]
    sides = (ELECTRODE, ELECTROLYTE) if side == "electrode" else (ELECTROLYTE, ELECTRODE)
    mine, other = (set(first.symbols[first.get_tags() == tag]) for tag in sides)
    return sorted(mine - other)


def _try(analysis: Any, missing: list[str]) -> Any:
    """The result, or None with the reason noted."""
    if analysis is None:
        missing.append("No layers: the first frame has no tags of electrode and electrolyte, or these are too thin.")
        return None
    try:
        return analysis.result()
    except ValueError as error:
        missing.append(str(error).splitlines()[0])
        return None
