"""Stages of dynamics, one after another, each on `run_md` with its own files, each gone on with where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from asenequip.errors import parameter_error
from asenequip.integrators import Settings
from asenequip.md import Guards, read_settings, run_md
from asenequip.restart import read_state


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes
    ----------
    name : str
        Of its files: NAME.traj, NAME.csv, NAME.restart.
    steps : int
    temperature : float
        K.
    options : dict
        Other parameters of `asenequip.md.run_md`: ensemble, thermostat, timestep, damping, interval, ...
    """

    name: str
    steps: int
    temperature: float
    options: Mapping[str, Any] = field(default_factory=dict)


def usual_stages(
    temperature: float,
    *,
    production: int,
    timestep: float = 2.0,
    heat: int = 500,
    anneal: int = 1000,
    interval: int = 50,
) -> list[Stage]:
    """Heat with strong damping and a short step, let the cell find its length, then run at constant volume.

    Parameters
    ----------
    temperature : float
        K.
    production, heat, anneal : int
        Steps; a stage of no steps is left out.
    timestep : float
        fs; heating takes half of it.
    interval : int
        Steps between frames of the production.
    """
    stages = [
        Stage("heat", heat, temperature, {"timestep": timestep / 2, "damping": 20.0, "interval": max(1, heat // 10)}),
        Stage(
            "anneal", anneal, temperature, {"ensemble": "npt", "timestep": timestep, "interval": max(1, anneal // 10)}
        ),
        Stage("production", production, temperature, {"timestep": timestep, "damping": 500.0, "interval": interval}),
    ]
    return [stage for stage in stages if stage.steps]


def run_stages(
    atoms: Atoms,
    calculator: BaseCalculator,
    stages: Sequence[Stage],
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    guards: Guards | None = None,
    watch: Callable[[str, Mapping[str, float]], None] | None = None,
) -> Atoms:
    """Run stages in a folder, or go on with them there.

    A finished stage is not run again; one that was interrupted goes on from its state exactly; a later call with more
    steps for the last stage makes that longer. Other atoms, or other settings than a stage began with, are refused. The
    tags of the atoms go along.

    Parameters
    ----------
    atoms : ase.Atoms
        Start of the first stage; not changed.
    calculator : ASE calculator
    stages : sequence of Stage
    folder : path
    seed : int
        Of the first stage; the next ones follow.
    guards : Guards, optional
    watch : callable, optional
        Gets the stage's name and the numbers of each table row.

    Returns
    -------
    ase.Atoms
        The last configuration, with momenta and the calculator.

    Raises
    ------
    ValueError, asenequip.md.Unstable, asenequip.interrupt.Interrupted
    """
    names = [stage.name for stage in stages]
    if not names or len(set(names)) < len(names):
        raise parameter_error("stages", "run_stages", "stages with names of their own", names)
    place, guards = Path(folder), guards or Guards()
    current = atoms
    for number, stage in enumerate(stages):
        tell = None if watch is None else partial(watch, stage.name)
        state = place / f"{stage.name}.restart"
        if state.exists():
            settings, progress = read_settings(state)
            last = read_state(state).atoms
            _check_same(state, stage, settings, last, atoms)
            if progress["step"] < stage.steps:
                last = run_md(None, calculator, steps=stage.steps, restart=state, guards=guards, watch=tell)
            current = last
            continue
        current = run_md(
            current,
            calculator,
            steps=stage.steps,
            temperature=stage.temperature,
            seed=seed + number,
            trajectory=place / f"{stage.name}.traj",
            log=place / f"{stage.name}.csv",
            guards=guards,
            watch=tell,
            **dict(stage.options),
        )
    current.calc = calculator
    return current


def _check_same(state: Path, stage: Stage, settings: Settings, last: Atoms, start: Atoms) -> None:
    """Refuse to go on with something else than what was begun."""
    if not np.array_equal(last.numbers, start.numbers):
        formulas = (atoms.symbols.get_chemical_formula() for atoms in (last, start))
        raise ValueError("'{}' was begun with {}, not with {}.\nTake another folder.".format(state, *formulas))
    for name, value in {"temperature": stage.temperature, **stage.options}.items():
        begun = getattr(settings, name, value)
        if begun != value:
            raise ValueError(
                f"'{state}' was begun with a {name} of {begun}, not of {value}.\n"
                "Ask for the same, or take another folder."
            )
