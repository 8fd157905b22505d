"""Crystals of an interface study, from space group, lattice and published Wyckoff positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, reference_states
from ase.spacegroup import crystal

from asenequip.errors import parameter_error


@dataclass(frozen=True)
class Prototype:
    """A crystal as published.

    Attributes
    ----------
    spacegroup : int
        Number in the International Tables.
    cell : tuple of float
        a, b, c in Angstrom; alpha, beta, gamma in degrees.
    sites : tuple of (str, (float, float, float), float)
        Element, fractional position and occupancy of each Wyckoff position.
    source : str
        Where lattice and positions were published.
    """

    spacegroup: int
    cell: tuple[float, float, float, float, float, float]
    sites: tuple[tuple[str, tuple[float, float, float], float], ...]
    source: str


def _cubic(a: float) -> tuple[float, float, float, float, float, float]:
    return (a, a, a, 90.0, 90.0, 90.0)


PROTOTYPES = {
    "Li": Prototype(
        229,
        _cubic(3.51),
        (("Li", (0.0, 0.0, 0.0), 1.0),),
        "M. R. Nadler and C. P. Kempter, Anal. Chem. 31, 2109 (1959)",
    ),
    "Cu": Prototype(
        225,
        _cubic(3.615),
        (("Cu", (0.0, 0.0, 0.0), 1.0),),
        "R. W. G. Wyckoff, Crystal Structures 1 (Interscience, 1963): 3.61496",
    ),
    "Ni": Prototype(
        225,
        _cubic(3.524),
        (("Ni", (0.0, 0.0, 0.0), 1.0),),
        "R. W. G. Wyckoff, Crystal Structures 1 (Interscience, 1963): 3.52387",
    ),
    "Li2S": Prototype(
        225,
        _cubic(5.71),
        (("S", (0.0, 0.0, 0.0), 1.0), ("Li", (0.25, 0.25, 0.25), 1.0)),
        "W. Buehrer and co-workers, J. Phys.: Condens. Matter 3, 1055 (1991)",
    ),
    "LiCl": Prototype(
        225,
        _cubic(5.13),
        (("Cl", (0.0, 0.0, 0.0), 1.0), ("Li", (0.5, 0.5, 0.5), 1.0)),
        "R. W. G. Wyckoff, Crystal Structures 1 (Interscience, 1963); 5.14 in K. S. Song and R. T. Williams, "
        "Self-Trapped Excitons (2nd edition, Springer, 1996), table 5.7",
    ),
    "Li3P": Prototype(
        194,
        (4.264, 4.264, 7.579, 90.0, 90.0, 120.0),
        (
            ("P", (1 / 3, 2 / 3, 0.25), 1.0),
            ("Li", (0.0, 0.0, 0.25), 1.0),
            ("Li", (1 / 3, 2 / 3, 0.583), 1.0),
        ),
        "lattice: J. D. H. Donnay, Crystal Data, 2nd edition, p. 765 (1963); positions: Y. Dong and F. J. DiSalvo, "
        "Acta Crystallogr. E 63, i97 (2007)",
    ),
    "Li6PS5Cl": Prototype(
        216,
        _cubic(9.859),
        (
            ("P", (0.5, 0.5, 0.5), 1.0),  # 4b
            ("S", (0.25, 0.25, 0.25), 1.0),  # 4c: sulfide, exchanges with chloride
            ("S", (0.618, 0.618, 0.618), 1.0),  # 16e: thiophosphate
            ("Cl", (0.0, 0.0, 0.0), 1.0),  # 4a
            ("Li", (0.183, 0.183, 0.024), 0.5),  # 48h: one of each close pair
        ),
        "H.-J. Deiseroth and co-workers, Angew. Chem. Int. Ed. 47, 755 (2008), rounded; without exchange of S and Cl",
    ),
}
"""Crystals by name; each with where it was published."""


def make_crystal(name: str) -> Atoms:
    """Build the conventional cell of a named crystal, all sites occupied.

    Parameters
    ----------
    name : str
        One of `PROTOTYPES`, or an element that is fcc, bcc, hcp or diamond in ASE's reference states.

    Returns
    -------
    ase.Atoms
        Periodic. The array ``site`` (n_atoms,) int64 numbers the Wyckoff position of each atom in the order of
        publication; ``occupancy`` (n_atoms,) float64 is that of its site. Where an occupancy is below one,
        `asenequip.interface.disorder.occupy` chooses.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in PROTOTYPES:
        return _element(name)
    prototype = PROTOTYPES[name]
    parts = []
    for number, (symbol, position, occupancy) in enumerate(prototype.sites):
        part = crystal([symbol], [position], spacegroup=prototype.spacegroup, cellpar=list(prototype.cell))
        part = Atoms(part.symbols, positions=part.positions, cell=part.cell, pbc=True)
        part.set_array("site", np.full(len(part), number, np.int64))
        part.set_array("occupancy", np.full(len(part), occupancy))
        parts.append(part)
    atoms = parts[0]
    for part in parts[1:]:
        atoms += part
    atoms.info["source"] = prototype.source
    return atoms


def _element(symbol: str) -> Atoms:
    """The crystal of an element in the state that ASE's reference data have it in."""
    state = reference_states[atomic_numbers[symbol]] if symbol in atomic_numbers else None
    kind = (state or {}).get("symmetry")
    if kind not in ("fcc", "bcc", "hcp", "diamond"):
        raise parameter_error(
            "name",
            "make_crystal",
            f"one of {', '.join(sorted(PROTOTYPES))}, or an element whose crystal is fcc, bcc, hcp or diamond",
            symbol,
            "Read other crystals from a file with ase.io.read.",
        )
    atoms = bulk(symbol, cubic=kind != "hcp")
    atoms = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    atoms.set_array("site", np.zeros(len(atoms), np.int64))
    atoms.set_array("occupancy", np.ones(len(atoms)))
    atoms.info["source"] = "N. W. Ashcroft and N. D. Mermin, Solid State Physics (1976), as in ase.data"
    return atoms


def with_sites(atoms: Atoms) -> Atoms:
    """Make a copy of any crystal with the arrays ``site`` and ``occupancy``, from what ASE reads out of a CIF file.

    Parameters
    ----------
    atoms : ase.Atoms
        Where it has these arrays, they are kept. Else its sites are those of the file (ASE's ``spacegroup_kinds``), or
        its elements where it does not say them; sites that the file says to be partly occupied are so.

    Returns
    -------
    ase.Atoms
        Where elements share a site, ``info["shares"]`` has {site: {element: share of its atoms}}; see
        `asenequip.interface.disorder.share_sites`.
    """
    found = atoms.copy()
    kinds = atoms.arrays.get("spacegroup_kinds")
    if "site" not in found.arrays:
        found.set_array(
            "site", np.unique(atoms.numbers, return_inverse=True)[1] if kinds is None else kinds.astype(int)
        )
    told = atoms.info.get("occupancy")
    if "occupancy" in found.arrays or kinds is None or not told:
        return found
    totals = {int(kind): sum(shares.values()) for kind, shares in told.items()}
    found.set_array("occupancy", np.array([round(totals[kind], 3) for kind in kinds.tolist()]))
    shared = {int(k): shares for k, shares in told.items() if len(shares) > 1 and int(k) in kinds}
    if shared:
        found.info["shares"] = {k: {s: x / totals[k] for s, x in shares.items()} for k, shares in shared.items()}
    return found
