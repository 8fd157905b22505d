"""All analyses of an interface trajectory in one pass over its frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from asenequip.errors import parameter_error
from asenequip.interface.build import ELECTRODE, ELECTROLYTE
from asenequip.interface.choices import Choices, usual_references, usual_sides
from asenequip.interface.creep import Creep, CreepResult
from asenequip.interface.diffusion import Diffusion, DiffusionResult
from asenequip.interface.environments import Environments, usual_rules
from asenequip.interface.growth import Fit, fit_growth
from asenequip.interface.phases import Phase, Phases, make_references
from asenequip.interface.profiles import Fronts, ProfileResult, Profiles, find_fronts, interphase_thickness
from asenequip.interface.reactions import BondResult, Bonds, PopulationResult, Populations
from asenequip.interface.snapshots import Snapshot, by_layer, contiguous, stream
from asenequip.interface.structure import Order, OrderResult, Radial, RadialResult
from asenequip.interface.trajectory import Frames, count_frames

LARGE = 100_000
"""Atoms above which classes are looked at less often, and fewer time origins are kept."""


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
        That of the choices, or the mean kinetic temperature of the frames, K; NaN without velocities.
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
    frames: Frames,
    *,
    index: str = ":",
    interval: float | None = None,
    timestep: float | None = None,
    start: Atoms | None = None,
    normal: str = "c",
    choices: Choices | None = None,
    watch: Callable[[int], None] | None = None,
) -> Analysis:
    """Analyse a trajectory in one pass; the memory does not grow with its length.

    Parameters
    ----------
    frames : path or iterable of ase.Atoms
        Where the first frame has the tags of `build_interface`, 1 in the electrode and 2 in the electrolyte, layers and
        creep follow them.
    index, interval, timestep, start, normal
        See `asenequip.interface.snapshots.stream`; ``start`` can bring the tags.
    choices : Choices, optional
    watch : callable, optional
        Gets the number of frames done.

    Returns
    -------
    Analysis

    Raises
    ------
    ValueError
    """
    choices = choices or Choices()
    lags = choices.lags
    if lags is None:
        lags = max(3, count_frames(frames, index) // 24)
    work: _Work | None = None
    options: dict[str, Any] = {"index": index, "interval": interval, "timestep": timestep}
    for snapshot in stream(frames, **options, start=start, normal=normal, reference=choices.reference):
        if work is None:
            work = _Work(snapshot, choices, lags)
        work.add(snapshot)
        if watch is not None:
            watch(snapshot.index + 1)
    if work is None or work.frames < 8:
        raise parameter_error("frames", "analyse", "at least 8 frames", 0 if work is None else work.frames)
    return work.result()


class _Work:
    """The analyses of one trajectory, fed together."""

    def __init__(self, first: Snapshot, choices: Choices, lags: int) -> None:
        if first.atoms.cell.rank < 3:
            remedy = "Give a slab one across its plane: atoms.center(vacuum=10, axis=2)."
            raise parameter_error("frames", "analyse", "with three lattice vectors", first.atoms.cell.tolist(), remedy)
        self.choices, self.first, self.lags = choices, first.atoms.copy(), lags
        species = sorted(set(first.atoms.get_chemical_symbols()))
        self.grouping = choices.classes or Environments(choices.rules or usual_rules(species))
        self.species, self.classes = Profiles(choices.bins), Profiles(choices.bins, grouping=self.grouping)
        large = len(first.atoms) > LARGE
        every = lags // 2 if large else None
        self.classes_every = choices.classes_every or (choices.structure_every if large else 1)
        self.diffusion = Diffusion(lags, every=every)
        carriers = [symbol for symbol in choices.carriers if symbol in species] or species
        layers = self._layers(first)
        self.electrolyte_share = 1.0 if layers is None else layers[0]
        self.layers = None if layers is None else Diffusion(lags, every=every, grouping=by_layer(carriers, *layers[1:]))
        self.radial = Radial(choices.cutoff, seed=choices.seed)
        self.order = Order(self.grouping, seed=choices.seed)
        self.populations = Populations(self.grouping)
        known = usual_references(species) if choices.references is None else choices.references
        self.phases = Phases(self.grouping, make_references(known, elements=species), seed=choices.seed)
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

    def _layers(self, first: Snapshot) -> tuple[float, list[float], list[str]] | None:
        """Share of the electrolyte in the cell, borders of the layers about the interfaces as shares, and their names.

        None without tags, or if the layers overlap.
        """
        tags = first.atoms.get_tags()
        if not {ELECTRODE, ELECTROLYTE} <= set(np.unique(tags)):
            return None
        heights = contiguous(first.heights[tags == ELECTROLYTE], first.length)
        half = self.choices.layer
        edges = np.array([heights.min() - half, heights.min() + half, heights.max() - half, heights.max() + half])
        edges /= first.length
        if not (np.diff(edges) > 0).all() or edges[3] - edges[0] >= 1:
            return None
        share, edges = float(edges[2] - edges[1]), np.mod(edges, 1.0)
        names = ("lower interface", "electrolyte", "upper interface", "electrode")
        order = np.argsort(edges)
        return share, edges[order].tolist(), [names[k] for k in order]

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
        told = self.choices.temperature
        self._kelvin += (atoms.get_temperature() if atoms.has("momenta") else np.nan) if told is None else told
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
        given = {"electrode": self.choices.electrode, "electrolyte": self.choices.electrolyte}
        usual = usual_sides(profile.names, self.first)
        sides = {side: usual[side] if names is None else names for side, names in given.items()}
        fronts = {}
        for side, groups in sides.items():
            present = [name for name in groups if name in profile.names]
            if not present or not profile.series[:, [profile.names.index(n) for n in present]].any():
                missing.append(
                    f"No front of the {side}: no atoms in its classes, {', '.join(groups) or 'which are not known'}."
                )
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


def _try(analysis: Any, missing: list[str]) -> Any:
    """The result, or None with the reason noted."""
    if analysis is None:
        missing.append(
            "No layers: the first frame has no tags of electrode and electrolyte (the start can bring them), or these "
            "are too thin."
        )
        return None
    try:
        return analysis.result()
    except ValueError as error:
        missing.append(str(error).splitlines()[0])
        return None
