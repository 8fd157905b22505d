"""What an analysis looks at and how finely, and what it takes where nothing is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.formula import Formula

from asenequip.interface.build import ELECTRODE, ELECTROLYTE
from asenequip.interface.crystals import PROTOTYPES, make_crystal
from asenequip.interface.environments import Rule
from asenequip.interface.slabs import NONMETALS
from asenequip.interface.snapshots import Grouping

CARRIERS = {"Li": 1.0, "Na": 1.0, "K": 1.0}
"""Mobile ions and their charges, unless others are named."""


@dataclass(frozen=True)
class Choices:
    """What is analysed, and how finely.

    Attributes
    ----------
    rules : sequence of Rule, optional
        Classes of atoms by bonds; `asenequip.interface.environments.usual_rules` unless given. Not used where
        ``classes`` is given.
    classes : callable, optional
        Another grouping, such as `asenequip.interface.environments.by_cluster`.
    electrode, electrolyte : sequence of str, optional
        Names of the classes whose fronts bound the interphase; `usual_sides` unless given.
    bonds : sequence of (str, str, float, float)
        Arguments of `asenequip.interface.reactions.Bonds`.
    references : sequence of str or ase.Atoms, optional
        Crystals, by name or as structures; those whose elements do not occur are left out. `usual_references` unless
        given.
    carriers : mapping of str to float
        Charges of the mobile ions, for the conductivity; those that occur count.
    temperature : float, optional
        Of the dynamics, K; that of the velocities unless given.
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
    references: Sequence[str | Atoms] | None = None
    carriers: Mapping[str, float] = field(default_factory=lambda: dict(CARRIERS))
    temperature: float | None = None
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


def usual_references(elements: Sequence[str]) -> list[str]:
    """Name the crystals that the elements can make: of `PROTOTYPES`, and of each metal that has a simple one."""
    found = [name for name in PROTOTYPES if set(Formula(name).count()) <= set(elements)]
    for symbol in elements:
        if symbol in PROTOTYPES or atomic_numbers[symbol] in NONMETALS:
            continue
        try:
            make_crystal(symbol)
        except ValueError:
            continue
        found.append(symbol)
    return found


def usual_sides(names: Sequence[str], first: Atoms) -> dict[str, list[str]]:
    """Name the classes that are electrode and electrolyte.

    Parameters
    ----------
    names : sequence of str
        Of all classes, such as those of `asenequip.interface.environments.usual_rules`.
    first : ase.Atoms
        A frame; where it has the tags of `build_interface`, elements are known to belong to a side.

    Returns
    -------
    dict of str to list of str
        "electrode": its metal, or the elements that it alone has. "electrolyte": intact thiophosphate, or the
        elements that it alone has, or without tags all non-metals. Empty where the names do not tell.
    """
    tags, symbols = first.get_tags(), np.array(first.get_chemical_symbols())
    told = bool((tags == ELECTRODE).any() and (tags == ELECTROLYTE).any())
    mine = set(symbols[tags == ELECTRODE] if told else symbols)
    theirs = set(symbols[tags == ELECTROLYTE]) if told else {s for s in mine if atomic_numbers[s] in NONMETALS}
    electrode = [f"{symbol} metal" for symbol in sorted(mine)] if told else [n for n in names if n.endswith(" metal")]
    electrode = [name for name in electrode if name in names]
    if not electrode and told:
        electrode = [name for name in sorted(mine - theirs) if name in names]
    electrolyte = ["P in PS4"] if "P" in theirs and "P in PS4" in names else []
    if not electrolyte:
        electrolyte = [name for name in sorted(theirs - mine if told else theirs) if name in names]
    return {"electrode": electrode, "electrolyte": electrolyte}
