"""Candidates for labelling: dynamics through temperature and pressure ramps, rattled, cut and random structures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed

from asenequip.active.settings import Dynamics, Explore, Random, Rattle, Surfaces
from asenequip.calculator import AllegroCalculator
from asenequip.errors import parameter_error
from asenequip.md import Guards, run_md
from asenequip.uncertainty.guard import Guard, GuardStop


def explore(
    starts: Sequence[Atoms],
    calculator: BaseCalculator,
    settings: Explore,
    *,
    seed: int = 0,
    watch: Callable[[str], None] | None = None,
) -> list[Atoms]:
    """Candidates of all kinds that the settings ask for.

    Parameters
    ----------
    starts : sequence of ase.Atoms
    calculator : ASE calculator
        For the dynamics; with a guard it must have a method ``uncertainty``.
    settings : Explore
    seed : int
        The same seed gives the same candidates.
    watch : callable, optional
        Gets a line on each part that is done.

    Returns
    -------
    list of ase.Atoms
        Without calculators; ``info["origin"]`` tells where each comes from.
    """
    found: list[Atoms] = []
    tell = watch or (lambda line: None)
    for number in range(settings.dynamics.runs):
        start = starts[number % len(starts)]
        frames = dynamics(start, calculator, settings.dynamics, settings.guard, seed=_mix(seed, 1, number))
        for frame in frames:
            frame.info["origin"] = f"dynamics {number}, {frame.info.pop('origin', '')}"
        found += frames
        tell(f"dynamics {number}: {len(frames)} frames")
    makers = (
        ("rattle", rattled(starts, settings.rattle, _mix(seed, 2))),
        ("surface", surfaces(starts, settings.surfaces, _mix(seed, 3))),
        ("random", random_structures(starts, settings.random, _mix(seed, 4))),
    )
    for name, made in makers:
        for k, atoms in enumerate(made):
            atoms.info["origin"] = f"{name} {k}"
            found.append(atoms)
    return found


def _mix(*numbers: int) -> int:
    """A seed of its own for each part."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def bare(atoms: Atoms) -> Atoms:
    """Geometry alone, as it goes to a labeller."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def dynamics(
    start: Atoms, calculator: BaseCalculator, settings: Dynamics, guard: float | None = None, seed: int = 0
) -> list[Atoms]:
    """Frames of one run through the ramp; it ends where the guard stops it or the dynamics breaks down.

    Parameters
    ----------
    start : ase.Atoms
    calculator : ASE calculator
    settings : Dynamics
    guard : float, optional
        eV/Angstrom, largest force deviation; the frame that is over it is the last one.
    seed : int
    """
    if settings.bias > 0:
        from asenequip.uncertainty.bias import UncertaintyBias

        if not isinstance(calculator, AllegroCalculator):
            wanted = "an AllegroCalculator, for dynamics with a bias"
            raise parameter_error("calculator", "explore", wanted, type(calculator).__name__, "Set bias: 0.")
        calculator = UncertaintyBias(calculator.evaluator, settings.bias)
    moving, frames = bare(start), []
    watcher = None if guard is None else Guard(guard, "stop")
    name = ""

    def observe(atoms: Atoms, step: int) -> None:
        if step and step % settings.interval == 0:
            frames.append(_named(atoms, f"{name}, step {step}"))
            if watcher is not None:
                watcher(atoms, step)

    pressures: Sequence[float | None] = settings.pressures or [None] * len(settings.temperatures)
    for k, (temperature, pressure) in enumerate(zip(settings.temperatures, pressures, strict=True)):
        name = f"{temperature:g} K" if pressure is None else f"{temperature:g} K {pressure:g} GPa"
        name += f", bias {settings.bias:g}" if settings.bias > 0 else ""
        options = {"ensemble": "nvt"} if pressure is None else {"ensemble": "npt", "pressure": pressure}
        try:
            moving = run_md(
                moving,
                calculator,
                steps=settings.steps,
                temperature=temperature,
                timestep=settings.timestep,
                seed=_mix(seed, k) % 2**31,
                interval=settings.steps,
                guards=Guards(coverage="off"),  # to leave what was covered is the purpose
                observe=observe,
                **options,  # type: ignore[arg-type]
            )
        except GuardStop:
            break
        except CalculationFailed:  # unstable: the last frames before are candidates, and good ones
            break
    return frames


def _named(atoms: Atoms, origin: str) -> Atoms:
    frame = bare(atoms)
    frame.info["origin"] = origin
    return frame


def rattled(starts: Sequence[Atoms], settings: Rattle, seed: int) -> Iterator[Atoms]:
    """Displaced and strained copies."""
    rng = np.random.default_rng(seed)
    for k in range(settings.count):
        atoms = bare(starts[k % len(starts)])
        if atoms.cell.rank == 3:
            strain = np.eye(3) + settings.strain * rng.standard_normal((3, 3))
            atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += settings.amplitude * rng.standard_normal(atoms.positions.shape)
        yield atoms


def surfaces(starts: Sequence[Atoms], settings: Surfaces, seed: int) -> Iterator[Atoms]:
    """Rattled slabs of random low indices and terminations."""
    from ase.build import surface

    rng = np.random.default_rng(seed)
    crystals = [atoms for atoms in starts if atoms.cell.rank == 3 and atoms.pbc.all()]
    for k in range(settings.count if crystals else 0):
        miller = np.zeros(3, int)
        while not miller.any():
            miller = rng.integers(-settings.max_miller, settings.max_miller + 1, 3)
        crystal = bare(crystals[k % len(crystals)])
        crystal.set_scaled_positions(crystal.get_scaled_positions() + rng.uniform(size=3))  # another termination
        crystal.wrap()
        slab = bare(surface(crystal, tuple(miller.tolist()), settings.layers, vacuum=settings.vacuum, periodic=True))
        slab.positions += settings.amplitude * rng.standard_normal(slab.positions.shape)
        yield slab


def random_structures(starts: Sequence[Atoms], settings: Random, seed: int, attempts: int = 2000) -> Iterator[Atoms]:
    """Atoms at random, one after another, none too near to another; those that do not fit are left out."""
    from ase.data import covalent_radii

    rng = np.random.default_rng(seed)
    cells = [atoms for atoms in starts if atoms.cell.rank == 3 and atoms.pbc.all()]
    for k in range(settings.count if cells else 0):
        model = cells[k % len(cells)]
        edge = (model.get_volume() * rng.uniform(*settings.stretch)) ** (1 / 3)
        numbers, points = rng.permutation(model.numbers), np.zeros((0, 3))
        for _ in range(attempts):
            if len(points) == len(numbers):
                break
            point = rng.uniform(0, edge, 3)
            gaps = points - point
            gaps -= edge * np.rint(gaps / edge)
            radii = covalent_radii[numbers[: len(points)]] + covalent_radii[numbers[len(points)]]
            if (np.linalg.norm(gaps, axis=1) > settings.separation * radii).all():
                points = np.vstack([points, point])
        yield Atoms(numbers=numbers[: len(points)], positions=points, cell=np.eye(3) * edge, pbc=True)
