"""Names for classes of atoms: their surroundings compared with those in known crystals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from asenequip.interface.crystals import make_crystal, with_sites
from asenequip.interface.disorder import occupy, share_sites
from asenequip.interface.pairs import NeighbourSearch
from asenequip.interface.slabs import NONMETALS
from asenequip.interface.snapshots import Grouping, Snapshot

CUTOFF, SPREAD, STEP = 6.0, 0.25, 0.1
"""Angstrom: radius of the surroundings, width that stands for vibrations, grid."""
REACH = CUTOFF + 3 * SPREAD
"""Angstrom: how far neighbours still count."""
STRAINS = np.linspace(-0.06, 0.06, 13)
"""Linear strains at which references are tried."""
ENOUGH = 48
"""Centres that a reference is averaged over."""
SIMILAR = 0.93
"""Cosine of two fingerprints below which a class is left without a name."""
ALIKE = 0.01
"""References whose cosines differ by less are told apart by their element."""
SHARE = 0.05
"""An element below this share of a class's atoms does not make it mixed."""


def fingerprint(atoms: Atoms, centres: np.ndarray, search: NeighbourSearch | None = None) -> np.ndarray:
    """Mean surroundings of some atoms: smoothed densities of metals and non-metals over distance.

    Which metal or non-metal a neighbour is does not matter, so that a mixed crystal is like the pure one of its type.

    Parameters
    ----------
    atoms : ase.Atoms
    centres : ndarray of int
    search : NeighbourSearch, optional
        One that is there already.

    Returns
    -------
    (2 n_grid,) float64
        Each shell weighs by its neighbours over its distance squared.
    """
    one, other, distance = (search or NeighbourSearch(atoms, REACH)).pairs(centres, REACH)
    nonmetal = np.isin(atoms.numbers[other], list(NONMETALS)).astype(np.int64)
    fine = STEP / 4
    bins = round(REACH / fine)
    index = np.minimum((distance / fine).astype(np.int64), bins - 1)
    counts = np.bincount(nonmetal * bins + index, 1 / distance**2, minlength=2 * bins).reshape(2, bins)
    radii, grid = (np.arange(bins) + 0.5) * fine, np.arange(1.0, CUTOFF, STEP)
    smooth = np.exp(-((grid[:, None] - radii) ** 2) / (2 * SPREAD**2))
    return (counts @ smooth.T).ravel() / max(len(np.unique(one)), 1)


@dataclass(frozen=True)
class Reference:
    """The surroundings of one site of a crystal.

    Attributes
    ----------
    crystal : str
    site : str
        Element, with a number where several sites have it.
    nonmetal : bool
    fingerprints : (n_strains, 2 n_grid) float64
    """

    crystal: str
    site: str
    nonmetal: bool
    fingerprints: np.ndarray


def make_references(
    crystals: Sequence[str | Atoms], seed: int = 0, elements: Sequence[str] | None = None
) -> list[Reference]:
    """Fingerprints of all sites of crystals, strained by up to 6 percent.

    Parameters
    ----------
    crystals : sequence of str or ase.Atoms
        Names that `asenequip.interface.crystals.make_crystal` knows, or periodic structures, which are called by
        their ``info["name"]`` or their formula.
    seed : int
        Of half-occupied and shared sites.
    elements : sequence of str, optional
        Crystals with any other element are left out.
    """
    found = []
    for given in crystals:
        crystal = make_crystal(given) if isinstance(given, str) else with_sites(given)
        if elements is not None and not set(crystal.symbols) <= set(elements):
            continue
        rng = np.random.default_rng(seed)
        atoms = occupy(share_sites(crystal.repeat(2), crystal.info.get("shares", {}), rng), rng)
        formula = atoms.symbols.formula.reduce()[0].format("metal")
        name = given if isinstance(given, str) else str(given.info.get("name", formula))
        sites = atoms.arrays["site"]
        numbers = np.unique(sites)
        symbols = [Counter(atoms.symbols[sites == number]).most_common(1)[0][0] for number in numbers]
        for rank, (number, symbol) in enumerate(zip(numbers, symbols, strict=True), start=1):
            label = symbol if symbols.count(symbol) == 1 else f"{symbol} {symbols[:rank].count(symbol)}"
            centres = np.flatnonzero(sites == number)
            centres = centres[:: max(1, len(centres) // ENOUGH)]
            rows = []
            for strain in STRAINS:
                moved = atoms.copy()
                moved.set_cell(atoms.cell.array * (1 + strain), scale_atoms=True)
                rows.append(fingerprint(moved, centres))
            found.append(Reference(name, label, atomic_numbers[symbol] in NONMETALS, np.array(rows)))
    return found


@dataclass(frozen=True)
class Phase:
    """What a class of atoms is most like.

    Attributes
    ----------
    group : str
        Name of the class.
    atoms : float
        Mean number of its atoms in a frame.
    composition : dict of str to float
        Shares of the elements among its atoms.
    crystal, site : str
        The reference; empty where none is similar enough.
    similarity : float
        Cosine with the best reference.
    strain : float
        Of the reference where it is most similar.
    mixed : bool
        Whether the class has several elements on the site, or another one than the reference.
    """

    group: str
    atoms: float
    composition: dict[str, float]
    crystal: str
    site: str
    similarity: float
    strain: float
    mixed: bool

    @property
    def name(self) -> str:
        """The class in words."""
        if not self.crystal:
            return "unlike all references"
        if not self.mixed:
            return f"{self.site} in {self.crystal}"
        parts = sorted(self.composition.items(), key=lambda item: -item[1])
        on_site = " ".join(f"{symbol}({share:.2f})" for symbol, share in parts if share >= SHARE)
        return f"{on_site} on the {self.site} site of {self.crystal}: a mixed crystal"


class Phases:
    """Gathers the fingerprint and the composition of each class in a stream.

    Parameters
    ----------
    grouping : callable
        The classes.
    references : sequence of Reference
    centres : int
        Most atoms of each class that are looked at in a frame, drawn at random.
    seed : int
    """

    def __init__(
        self, grouping: Grouping, references: Sequence[Reference], *, centres: int = 500, seed: int = 0
    ) -> None:
        self.grouping, self.references, self.centres = grouping, list(references), centres
        self._rng = np.random.default_rng(seed)
        self._sums: dict[str, np.ndarray] = {}
        self._looked: dict[str, int] = {}
        self._elements: dict[str, dict[str, int]] = {}
        self._frames = 0

    def add(self, snapshot: Snapshot) -> None:
        """Take the next snapshot."""
        labels, names = self.grouping(snapshot)
        self._frames += 1
        for row, name in enumerate(names):
            mine = np.flatnonzero(labels == row)
            if not len(mine):
                continue
            numbers, counts = np.unique(snapshot.atoms.numbers[mine], return_counts=True)
            tally = self._elements.setdefault(name, {})
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                tally[chemical_symbols[number]] = tally.get(chemical_symbols[number], 0) + count
            sample = mine if len(mine) <= self.centres else self._rng.choice(mine, self.centres, replace=False)
            self._sums[name] = self._sums.get(name, 0.0) + fingerprint(
                snapshot.atoms, sample, snapshot.search(REACH)
            ) * len(sample)
            self._looked[name] = self._looked.get(name, 0) + len(sample)

    def result(self) -> list[Phase]:
        """Compare each class with the references."""
        return [self._match(name) for name in self._sums]

    def _match(self, name: str) -> Phase:
        tally = self._elements[name]
        total = sum(tally.values())
        shares = {symbol: count / total for symbol, count in sorted(tally.items())}
        main = max(shares, key=lambda symbol: shares[symbol])
        nonmetal = bool(np.isin(Atoms(main).numbers[0], list(NONMETALS)))
        mine = self._sums[name] / self._looked[name]
        scored = [(*_cosine(entry, mine), entry) for entry in self.references if entry.nonmetal == nonmetal]
        if not scored:
            return Phase(name, total / self._frames, shares, "", "", 0.0, 0.0, False)
        most = max(score for score, _, _ in scored)
        near = [entry for entry in scored if entry[0] > most - ALIKE]
        score, strain, best = max(near, key=lambda entry: (entry[2].site.split()[0] == main, entry[0]))
        if score < SIMILAR:
            return Phase(name, total / self._frames, shares, "", "", score, strain, False)
        element = best.site.split()[0]
        mixed = sum(share >= SHARE for share in shares.values()) > 1 or main != element
        return Phase(name, total / self._frames, shares, best.crystal, best.site, score, strain, mixed)


def _cosine(reference: Reference, mine: np.ndarray) -> tuple[float, float]:
    """Largest cosine of a fingerprint with a reference's, and the strain it is at."""
    lengths = np.linalg.norm(reference.fingerprints, axis=1) * max(float(np.linalg.norm(mine)), 1e-300)
    cosine = reference.fingerprints @ mine / lengths
    k = int(cosine.argmax())
    return float(cosine[k]), float(STRAINS[k])
