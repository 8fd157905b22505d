"""Descriptors of atomic environments: any callable that gives one row of numbers per atom."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from asenequip.cluster._checks import check

__all__ = ["SOAP", "Averaged", "CallableDescriptor", "Descriptor", "describe", "windowed"]


@runtime_checkable
class Descriptor(Protocol):
    """What describes the environments of a frame."""

    def __call__(self, atoms: Atoms) -> NDArray:
        """Give one row per atom, shape (n_atoms, n_features)."""


class CallableDescriptor:
    """A function as a descriptor with a name, so that a saved model can say which one it needs.

    Parameters
    ----------
    function : callable
        `function(atoms)` gives an array of shape (n_atoms, n_features).
    name : str, optional
        The function's own name unless given.
    """

    def __init__(self, function: Callable[[Atoms], NDArray], name: str | None = None) -> None:
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)

    def __call__(self, atoms: Atoms) -> NDArray:
        """Give one row per atom, shape (n_atoms, n_features)."""
        return self.function(atoms)


class SOAP:
    """Smooth overlap of atomic positions, by DScribe.

    Parameters
    ----------
    species : sequence of str, optional
        Elements that may occur; those of the first frame described unless given.
    cutoff : float
        Radius of the environments, Angstrom.
    n_max, l_max : int
        Radial and angular resolution.
    sigma : float
        Width of the atoms' densities, Angstrom.
    normalise : bool
        Whether every environment is scaled to length one.
    """

    def __init__(
        self,
        species: Sequence[str] | None = None,
        *,
        cutoff: float = 5.0,
        n_max: int = 6,
        l_max: int = 4,
        sigma: float = 0.5,
        normalise: bool = True,
    ) -> None:
        self.species = None if species is None else sorted(set(species))
        self.cutoff = cutoff
        self.n_max = n_max
        self.l_max = l_max
        self.sigma = sigma
        self.normalise = normalise

    def config(self) -> dict[str, Any]:
        """Give what builds the same descriptor again."""
        names = ("species", "cutoff", "n_max", "l_max", "sigma", "normalise")
        return {name: getattr(self, name) for name in names}

    def __call__(self, atoms: Atoms) -> NDArray:
        """Give one row per atom, shape (n_atoms, n_features), dimensionless."""
        if self.species is None:
            self.species = sorted(set(atoms.get_chemical_symbols()))
        try:
            from dscribe import descriptors as engines
        except ImportError as error:
            raise ImportError(
                "SOAP needs DScribe, which is not installed.\nInstall it with: pip install dscribe"
            ) from error
        engine = engines.SOAP(
            species=self.species,
            r_cut=self.cutoff,
            n_max=self.n_max,
            l_max=self.l_max,
            sigma=self.sigma,
            periodic=bool(np.any(atoms.pbc)),
        )
        rows = np.asarray(engine.create(atoms), dtype=np.float64)
        if self.normalise:
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            rows = rows / np.where(lengths > 0, lengths, 1.0)
        return rows


class Averaged:
    """A descriptor averaged over each atom and its neighbours.

    Thermal motion spreads the environments of a hot crystal until they overlap with those of others; the mean over the
    neighbours keeps what they have in common, as in averaged bond-order parameters (Lechner and Dellago 2008,
    J. Chem. Phys. 129, 114707).

    Parameters
    ----------
    descriptor : callable
        `descriptor(atoms)` gives one row per atom.
    cutoff : float
        Neighbours within this distance, Angstrom; of the same element only, so that elements stay apart.
    """

    def __init__(self, descriptor: Descriptor, cutoff: float = 3.5) -> None:
        self.descriptor = descriptor
        self.cutoff = cutoff

    def __call__(self, atoms: Atoms) -> NDArray:
        """Give one row per atom, shape (n_atoms, n_features)."""
        from ase.neighborlist import neighbor_list
        from scipy.sparse import csr_matrix

        first, second = neighbor_list("ij", atoms, self.cutoff)
        alike = atoms.numbers[first] == atoms.numbers[second]
        n = len(atoms)
        links = csr_matrix((np.ones(int(alike.sum())), (first[alike], second[alike])), shape=(n, n))
        rows = np.asarray(self.descriptor(atoms), np.float64)
        return (rows + links @ rows) / (1 + np.asarray(links.sum(axis=1)).reshape(-1, 1))


def describe(descriptor: Descriptor, atoms: Atoms, frame: int) -> NDArray[np.float64]:
    """Describe one frame and check what comes back.

    Parameters
    ----------
    descriptor : callable
    atoms : ase.Atoms
    frame : int
        Number of the frame, for the error sentence.

    Returns
    -------
    ndarray of float64, shape (n_atoms, n_features)
    """
    rows = np.asarray(descriptor(atoms))
    good = rows.ndim == 2 and len(rows) == len(atoms) and rows.shape[1] > 0
    check(
        good,
        "descriptor",
        "EnvironmentClusters",
        f"a callable that gives one row for each of the {len(atoms)} atoms of frame {frame}",
        f"an array of shape {rows.shape}",
        "Return an array of shape (n_atoms, n_features).",
    )
    rows = rows.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"The descriptor of atom {bad[0]} in frame {frame} is not finite.\n"
            "Look at that atom's surroundings, or leave the frame out."
        )
    return rows


def windowed(frames: Iterable[Atoms], descriptor: Descriptor, window: int = 1) -> Iterator[tuple[int, Atoms, NDArray]]:
    """Describe frames one after another, each averaged over the frames around it, with `window` of them in memory.

    Parameters
    ----------
    frames : iterable of ase.Atoms
    descriptor : callable
    window : int
        Odd number of consecutive frames that are averaged, fewer at the ends and where the atoms change.

    Yields
    ------
    index : int
    atoms : ase.Atoms
    rows : ndarray of float64, shape (n_atoms, n_features)
    """
    half = window // 2
    held: list[tuple[int, Atoms, NDArray]] = []

    def averaged(place: int) -> tuple[int, Atoms, NDArray]:
        index, atoms, rows = held[place]
        if half == 0:
            return index, atoms, rows
        near = held[max(0, place - half) : place + half + 1]
        same = [r for i, a, r in near if abs(i - index) <= half and np.array_equal(a.numbers, atoms.numbers)]
        return index, atoms, np.mean(same, axis=0)

    pending = 0
    for index, atoms in enumerate(frames):
        held.append((index, atoms, describe(descriptor, atoms, index)))
        if len(held) - 1 - pending >= half:
            yield averaged(pending)
            pending += 1
            if pending > half:
                held.pop(0)
                pending -= 1
    while pending < len(held):
        yield averaged(pending)
        pending += 1


def descriptor_config(descriptor: Any) -> str:
    """Give the JSON that a saved model keeps of its descriptor."""
    if isinstance(descriptor, SOAP):
        return json.dumps({"kind": "soap", **descriptor.config()})
    if isinstance(descriptor, Averaged):
        inner = descriptor_config(descriptor.descriptor)
        return json.dumps({"kind": "averaged", "cutoff": descriptor.cutoff, "descriptor": inner, "name": "Averaged"})
    name = getattr(descriptor, "name", getattr(descriptor, "__name__", type(descriptor).__name__))
    return json.dumps({"kind": "callable", "name": name})


def descriptor_from_config(text: str) -> Any:
    """Build the descriptor of a saved model, None where it was the user's own function."""
    config = json.loads(text)
    kind = config.pop("kind")
    if kind == "averaged":
        inner = descriptor_from_config(config["descriptor"])
        return None if inner is None else Averaged(inner, config["cutoff"])
    return SOAP(config.pop("species"), **config) if kind == "soap" else None
