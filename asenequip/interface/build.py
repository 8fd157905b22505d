"""The cell of an interface study: electrode | electrolyte | electrode, periodic, from two crystals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import make_supercell

from asenequip.errors import parameter_error
from asenequip.interface.crystals import make_crystal, with_sites
from asenequip.interface.disorder import exchange, occupy, remove_atoms, share_sites
from asenequip.interface.matching import Match, find_matches
from asenequip.interface.pairs import NeighbourSearch
from asenequip.interface.slabs import cut, orient, terminations

ELECTRODE, ELECTROLYTE = 1, 2
"""Tags of the atoms; ASE keeps them in all its trajectories."""
_STEP, _MOST = 0.05, 4.0
"""Angstrom: by how much the gap is widened at a time where atoms are too close, and by how much at most."""
VACUUM = 6.0
"""Angstrom: planes of a periodic structure that are farther from each other have a vacuum between them."""


@dataclass(frozen=True)
class Side:
    """One of the two materials.

    Attributes
    ----------
    crystal : str or ase.Atoms
        A name that `asenequip.interface.crystals.make_crystal` knows, or a structure: a periodic crystal, or a slab.
        Sites that a CIF file says to be half occupied or shared by elements are so. A slab, with a vacuum above it or
        periodic in its plane only, is taken once, as it is.
    miller : (int, int, int)
        Plane of the interface, in the vectors of the structure; (0, 0, 1) for a slab that has a vacuum in its cell.
    thickness : float
        Angstrom; rounded to whole repeats of the crystal along the normal, at least one. Of the electrode, half lies
        on either side of the electrolyte.
    termination : int
        Number in the list of `asenequip.interface.slabs.terminations`; 0 breaks the fewest bonds.
    exchange : (int, int, float), optional
        Two sites of the crystal and the degree to which their atoms change places. Sites are numbered in the order of
        publication, or by the array ``site``; see `asenequip.interface.crystals.with_sites`.
    vacancies : float
        Share of all atoms that are taken out at random.
    """

    crystal: str | Atoms
    miller: tuple[int, int, int] = (1, 0, 0)
    thickness: float = 20.0
    termination: int = 0
    exchange: tuple[int, int, float] | None = None
    vacancies: float = 0.0

    def __post_init__(self) -> None:
        if not self.thickness > 0:
            raise parameter_error("thickness", "Side", "a float > 0, Angstrom", self.thickness)
        if not 0 <= self.vacancies < 1:
            raise parameter_error("vacancies", "Side", "a float in [0, 1)", self.vacancies)

    def unit(self) -> Atoms:
        """One repeat of the oriented crystal, all sites occupied."""
        crystal = make_crystal(self.crystal) if isinstance(self.crystal, str) else with_sites(self.crystal)
        miller = self.miller
        if crystal.pbc.tolist() == [True, True, False]:
            crystal.center(vacuum=VACUUM, axis=2)
            crystal.pbc, miller = True, (0, 0, 1)
        unit = orient(crystal, miller)
        unit.info["shares"] = crystal.info.get("shares", {})
        return unit


def build_interface(
    electrode: Side,
    electrolyte: Side,
    *,
    gap: float = 2.2,
    min_distance: float = 1.9,
    max_area: float = 400.0,
    max_misfit: float = 0.05,
    share: float = 0.5,
    repeat: tuple[int, int] = (1, 1),
    seed: int = 0,
) -> Atoms:
    """Build electrode | electrolyte | electrode: the electrolyte in the middle, the electrode across the boundary.

    The two lattices are matched by the smallest common supercell whose misfit is small enough. The cell is periodic
    in three directions and has two interfaces with the same gap; both halves of the electrode are one crystal.

    Parameters
    ----------
    electrode, electrolyte : Side
    gap : float
        Between the outermost planes of the two slabs, Angstrom. It is widened until no two atoms across an interface
        are closer than ``min_distance``.
    min_distance : float
        Angstrom.
    max_area, max_misfit, share
        See `asenequip.interface.matching.find_matches`; ``share`` is what the electrode takes on.
    repeat : (int, int)
        Repeats of the common supercell in the plane.
    seed : int
        Of occupations, exchanges and vacancies.

    Returns
    -------
    ase.Atoms
        Tagged 1 in the electrode and 2 in the electrolyte; ``info`` says what was built: misfit, principal strains,
        area, gap, repeats along the normal.

    Raises
    ------
    ValueError
        For a parameter out of range, or if no common supercell is as good as asked.
    """
    for name, value in (
        ("gap", gap),
        ("min_distance", min_distance),
        ("max_area", max_area),
        ("max_misfit", max_misfit),
    ):
        if not value > 0:
            raise parameter_error(name, "build_interface", "a float > 0", value)
    if not all(isinstance(n, (int, np.integer)) and n > 0 for n in repeat) or len(repeat) != 2:
        raise parameter_error("repeat", "build_interface", "two integers > 0", repeat)
    rng = np.random.default_rng(seed)
    units = electrode.unit(), electrolyte.unit()
    match = choose_match(units[0], units[1], max_area=max_area, max_misfit=max_misfit, share=share)
    slabs = [
        _slab(side, unit, matrix, match.cell, repeat, rng)
        for side, unit, matrix in zip((electrode, electrolyte), units, (match.first, match.second), strict=True)
    ]
    for tag, slab in zip((ELECTRODE, ELECTROLYTE), slabs, strict=True):
        slab.set_tags(tag)
    wide = gap
    while (atoms := _stack(slabs[0], slabs[1], wide)) and _closest(atoms, min_distance) < min_distance:
        wide += _STEP
        if wide > gap + _MOST:
            raise parameter_error(
                "min_distance", "build_interface", "a distance that a gap can keep", min_distance, "Lower it."
            )
    atoms.info.update(_provenance(match, slabs, wide, seed))
    return atoms


def choose_match(electrode: Atoms, electrolyte: Atoms, *, max_area: float, max_misfit: float, share: float) -> Match:
    """Choose the smallest common supercell of two oriented crystals with a misfit as small as asked.

    Raises
    ------
    ValueError
        With the best that was found, if it is not good enough.
    """
    lattices = (electrode.cell.array[:2, :2], electrolyte.cell.array[:2, :2])
    matches = find_matches(*lattices, max_area=max_area, max_misfit=0.3, share=share)
    good = [match for match in matches if match.misfit <= max_misfit]
    if not good:
        best = f"{matches[-1].misfit:.3f} at {matches[-1].area:.0f} Angstrom^2" if matches else "none"
        raise parameter_error(
            "max_misfit",
            "build_interface",
            f"at least the smallest misfit up to max_area ({best})",
            max_misfit,
            "Allow a larger area or misfit, or take other planes.",
        )
    return good[0]


def _slab(
    side: Side, unit: Atoms, matrix: np.ndarray, cell: np.ndarray, repeat: tuple[int, int], rng: np.random.Generator
) -> Atoms:
    """A slab in the common lattice: strained, disordered as a periodic crystal, then cut."""
    places = terminations(unit)
    if not 0 <= side.termination < len(places):
        raise parameter_error("termination", "Side", f"an integer from 0 to {len(places) - 1}", side.termination)
    height = unit.cell.array[2, 2]
    alone = max(place.spacing for place in places) > VACUUM
    layers = 1 if alone else max(1, round(side.thickness / height))
    whole = make_supercell(unit, np.block([[matrix, np.zeros((2, 1), int)], [np.zeros((1, 2), int), np.eye(1)]]))
    lattice = whole.cell.array
    third = lattice[2, :2] @ np.linalg.inv(lattice[:2, :2]) @ cell
    whole.set_cell([[*cell[0], 0.0], [*cell[1], 0.0], [*third, height]], scale_atoms=True)
    whole = share_sites(whole.repeat((*repeat, layers)), unit.info["shares"], rng)
    if side.exchange is not None:
        first, second, degree = side.exchange
        whole = exchange(whole, (first, second), degree, rng)
    whole = occupy(whole, rng)
    slab = cut(whole, places[side.termination].height)
    if side.vacancies:
        slab = remove_atoms(slab, _one_element(slab), side.vacancies, rng)
    slab.info = {"repeats": layers}
    return slab


def _one_element(atoms: Atoms) -> str:
    symbols = set(atoms.symbols)
    if len(symbols) > 1:
        raise parameter_error(
            "vacancies", "Side", "0 for a compound", "a share", "Take atoms out with asenequip.interface.remove_atoms."
        )
    return symbols.pop()


def _stack(electrode: Atoms, electrolyte: Atoms, gap: float) -> Atoms:
    """The electrolyte in the middle of the cell, the electrode's middle at its boundary."""
    thick = [slab.positions[:, 2].max() for slab in (electrode, electrolyte)]
    length = thick[0] + thick[1] + 2 * gap
    cell = electrolyte.cell.array.copy()
    cell[2] = (0.0, 0.0, length)
    below, middle = electrode.copy(), electrolyte.copy()
    below.positions[:, 2] -= thick[0] / 2
    middle.positions[:, 2] += length / 2 - thick[1] / 2
    for part in (below, middle):
        part.set_cell(cell)
        part.pbc = True
        part.info = {}
        for name in set(part.arrays) - {"numbers", "positions", "tags"}:
            del part.arrays[name]
    atoms = below + middle
    atoms.wrap()
    return atoms


def _closest(atoms: Atoms, cutoff: float) -> float:
    """Least distance across an interface, Angstrom; inf where none is below the cutoff."""
    tags = atoms.get_tags()
    search = NeighbourSearch(atoms, cutoff, tags == ELECTRODE)
    return float(search.nearest(np.flatnonzero(tags == ELECTROLYTE))[0].min(initial=np.inf))


def _provenance(match: Match, slabs: list[Atoms], gap: float, seed: int) -> dict[str, object]:
    strains = [np.linalg.eigvalsh(s) for s in (match.strain_first, match.strain_second)]
    return {
        "electrode": slabs[0].symbols.get_chemical_formula(),
        "electrolyte": slabs[1].symbols.get_chemical_formula(),
        "misfit": round(match.misfit, 6),
        "strain_electrode": [round(float(x), 6) for x in strains[0]],
        "strain_electrolyte": [round(float(x), 6) for x in strains[1]],
        "matched_area": round(match.area, 3),
        "gap": round(gap, 3),
        "electrode_repeats": slabs[0].info["repeats"],
        "electrolyte_repeats": slabs[1].info["repeats"],
        "seed": seed,
    }
