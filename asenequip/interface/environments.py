"""Classes of atoms by their bonds: what is intact, what has reacted, what is metal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from asenequip.errors import parameter_error
from asenequip.interface.pairs import NeighbourSearch
from asenequip.interface.slabs import NONMETALS
from asenequip.interface.snapshots import Grouping, Labels, Snapshot


@dataclass(frozen=True)
class Rule:
    """A class: atoms of an element with a number of neighbours.

    Attributes
    ----------
    name : str
    element : str
    neighbours : tuple of str
        Elements that are counted; none of them matters if empty.
    cutoff : float
        Angstrom.
    least, most : int
        Numbers of neighbours, both included.
    """

    name: str
    element: str
    neighbours: tuple[str, ...] = ()
    cutoff: float = 3.0
    least: int = 0
    most: int = 10**6


ARGYRODITE = (
    Rule("P in PS4", "P", ("S",), 2.6, 4),
    Rule("P in PS1-3", "P", ("S",), 2.6, 1, 3),
    Rule("P without S", "P"),
    Rule("S bound to P", "S", ("P",), 2.6, 1),
    Rule("S without P", "S"),
    Rule("Cl", "Cl"),
    Rule("Li metal", "Li", ("P", "S", "Cl"), 3.4, 0, 0),
    Rule("Li ionic", "Li"),
)
"""For Li | Li6PS5Cl and other lithium thiophosphates. P-S is 2.05 Angstrom, Li-S 2.4, Li-Cl 2.6."""
_IONIC = 1.45
"""A metal is ionic with a non-metal within this times the largest sum of their covalent radii; 3.4 for Li and P."""


def usual_rules(elements: Sequence[str]) -> tuple[Rule, ...]:
    """Make the rules of any interface: metal or ion for each metal, thiophosphates apart, other non-metals by element.

    Parameters
    ----------
    elements : sequence of str
        Those that occur.

    Returns
    -------
    tuple of Rule
        For Li, P, S and Cl they sort as `ARGYRODITE` does. Metals alone, such as an alloy, are told by element.
    """
    nonmetals = [symbol for symbol in elements if atomic_numbers[symbol] in NONMETALS]
    thiophosphate = {"P", "S"} if {"P", "S"} <= set(elements) else set()
    rules = [rule for rule in ARGYRODITE if rule.element in thiophosphate]
    rules += [Rule(symbol, symbol) for symbol in nonmetals if symbol not in thiophosphate]
    for metal in (symbol for symbol in elements if symbol not in nonmetals):
        if not nonmetals:
            rules.append(Rule(metal, metal))
            continue
        sums = [covalent_radii[[atomic_numbers[metal], atomic_numbers[symbol]]].sum() for symbol in nonmetals]
        cutoff = round(_IONIC * float(max(sums)), 1)
        rules.append(Rule(f"{metal} metal", metal, tuple(nonmetals), cutoff, 0, 0))
        rules.append(Rule(f"{metal} ionic", metal))
    return tuple(rules)


class Environments:
    """Groups atoms by the first rule that fits; a grouping for profiles, diffusion and populations.

    Parameters
    ----------
    rules : sequence of Rule
    """

    def __init__(self, rules: Sequence[Rule] = ARGYRODITE) -> None:
        names = [rule.name for rule in rules]
        if not names or len(set(names)) < len(names):
            raise parameter_error("rules", "Environments", "rules with names of their own", names)
        self.rules, self.names = tuple(rules), names
        self._last: tuple[Snapshot | None, np.ndarray] = (None, np.empty(0))

    def __call__(self, snapshot: Snapshot) -> Labels:
        """Number of each atom's rule, -1 where none fits; kept for the analyses that ask for the same snapshot."""
        if self._last[0] is not snapshot:
            self._last = (snapshot, self._classify(snapshot))
        return self._last[1], self.names

    def _classify(self, snapshot: Snapshot) -> np.ndarray:
        atoms = snapshot.atoms
        numbers = atoms.numbers
        labels = np.full(len(atoms), -1, np.int64)
        for number, rule in enumerate(self.rules):
            open_ = np.flatnonzero((numbers == atomic_numbers[rule.element]) & (labels < 0))
            if not len(open_):
                continue
            if not rule.neighbours:
                labels[open_] = number
                continue
            search = NeighbourSearch(atoms, rule.cutoff, np.isin(numbers, [atomic_numbers[n] for n in rule.neighbours]))
            if rule.least <= 1 and rule.most in (0, 10**6):  # whether there is any: the nearest tells
                near = np.isfinite(search.nearest(open_)[0]).astype(int)
                fits = (near >= rule.least) & (near <= rule.most)
            else:
                count = np.bincount(search.pairs(open_)[0], minlength=len(atoms))[open_]
                fits = (count >= rule.least) & (count <= rule.most)
            labels[open_[fits]] = number
        return labels


def by_cluster(names: Sequence[str]) -> Grouping:
    """Group atoms by the array ``cluster`` of `asenequip.cluster.EnvironmentClusters`, with names for the clusters."""

    def group(snapshot: Snapshot) -> Labels:
        if "cluster" not in snapshot.atoms.arrays:
            raise ValueError(
                "The frames have no array 'cluster'.\nLabel them with asenequip cluster, or leave the classes to bonds."
            )
        labels = snapshot.atoms.arrays["cluster"].astype(np.int64)
        if labels.max(initial=-1) >= len(names):
            raise parameter_error(
                "names", "by_cluster", f"at least {labels.max() + 1}, one for each cluster", list(names)
            )
        return labels, list(names)

    return group
