"""Structures through the fused engine: small ones together, up to a budget of edges, the others one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from ase import Atoms

from asenequip.errors import BAD_STRUCTURE
from asenequip.fused.engine import CoincidingAtomsError, FusedEngine
from asenequip.fused.lists import Structures, list_small
from asenequip.graph import atom_types, check_geometry, coinciding_atoms, input_errors, number_types
from asenequip.listcache import ListCache
from asenequip.memory import in_parts_that_fit
from asenequip.neighbors import is_skewed
from asenequip.results import Outcome, Results, results_of

SMALL = 128
"""Atoms up to which every pair is looked at, which takes about a hundredth of the evaluation's time."""

_FAR = 1e6
"""Angstrom: what reaches beyond takes the careful way."""


class FusedBatch:
    """Evaluates structures with one engine; one that is bad does not stop the others.

    Parameters
    ----------
    engine : FusedEngine
    lists : ListCache
        For structures that come alone: theirs are kept.
    max_edges : int
        Edges of the structures that go through the engine together.
    """

    def __init__(self, engine: FusedEngine, lists: ListCache, max_edges: int) -> None:
        self.engine, self.lists, self.max_edges = engine, lists, max_edges

    def outcomes(self, frames: Sequence[Atoms], last_layer: bool = False) -> list[Outcome]:
        """Results or errors, in the order of the structures."""
        small = [k for k, atoms in enumerate(frames) if len(atoms) <= SMALL]
        if len(small) < 2:
            return [self._alone(atoms, last_layer) for atoms in frames]
        found: list[Outcome | None] = [None] * len(frames)
        for part in self._parts(frames, small):
            outcomes = in_parts_that_fit(partial(self._together, last_layer=last_layer), [frames[k] for k in part])
            for k, outcome in zip(part, outcomes, strict=True):
                found[k] = outcome
        return [self._alone(frames[k], last_layer) if known is None else known for k, known in enumerate(found)]

    def _parts(self, frames: Sequence[Atoms], chosen: Sequence[int]) -> Iterator[list[int]]:
        """Places of structures whose arrays are joined: an atom has some tens of edges."""
        part: list[int] = []
        atoms = 0
        for k in chosen:
            if part and atoms + len(frames[k]) > self.max_edges // 16:
                yield part
                part, atoms = [], 0
            part.append(k)
            atoms += len(frames[k])
        yield part

    def _alone(self, atoms: Atoms, last_layer: bool) -> Outcome:
        try:
            return self._evaluate(atoms, last_layer)
        except BAD_STRUCTURE as error:
            return error

    def _evaluate(self, atoms: Atoms, last_layer: bool) -> Results:
        check_geometry(atoms)
        spec = self.engine.spec
        types = atom_types(atoms, spec.type_names)
        cell, pbc = np.asarray(atoms.cell, np.float64), np.asarray(atoms.pbc, bool)
        layer = self._layer(len(atoms)) if last_layer else None
        with input_errors():
            rows = self.lists.list_for(atoms).rows(atoms.positions, cell, pbc)
            frames = np.zeros(len(atoms), np.int32)
            try:
                found = self.engine.run(atoms.positions, cell[None], frames, types, rows, last_layer=layer)
            except CoincidingAtomsError as error:
                center = int(np.searchsorted(rows.ptr, error.edge, side="right")) - 1
                raise coinciding_atoms(center, int(rows.neighbors[error.edge])) from None
        volume = np.abs(np.linalg.det(cell[None]))
        return results_of(np.array([0, len(atoms)]), *found, volume, self._cut(layer))[0]

    def _layer(self, num_atoms: int) -> np.ndarray:
        return np.zeros((num_atoms, self.engine.padded_readout))

    def _cut(self, layer: np.ndarray | None) -> np.ndarray | None:
        """Without the padding."""
        return None if layer is None else layer[:, : self.engine.spec.readout_width]

    def _together(self, frames: Sequence[Atoms], last_layer: bool) -> list[Outcome]:
        structures, types = self._join(frames)
        plain = _is_plain(structures, types)
        if not plain.all():
            good = iter(
                self._together([frames[k] for k in np.flatnonzero(plain).tolist()], last_layer) if plain.any() else ()
            )
            return [next(good) if is_plain else self._alone(frames[k], last_layer) for k, is_plain in enumerate(plain)]
        found: list[Outcome] = []
        while (first := len(found)) < len(frames):
            rest = structures.part(first, len(frames))
            count, edges, touching = list_small(self.engine.library, rest, self.engine.spec.cutoff, self.max_edges)
            if count == 0:  # more edges in one structure than are worked on at once
                found.append(self._alone(frames[first], last_layer))
                continue
            part = rest.part(0, count)
            place = np.repeat(np.arange(count, dtype=np.int32), np.diff(part.starts))
            layer = self._layer(len(place)) if last_layer else None
            kinds = types[structures.starts[first] : structures.starts[first + count]]
            arrays = self.engine.run(part.positions, part.cells, place, kinds, edges, last_layer=layer)
            volumes = np.abs(np.linalg.det(part.cells))
            results: list[Outcome] = list(results_of(part.starts, *arrays, volumes, self._cut(layer)))
            for k in np.flatnonzero(touching[:, 0] >= 0):
                results[k] = coinciding_atoms(*touching[k].tolist())
            found += results
        return found

    def _join(self, frames: Sequence[Atoms]) -> tuple[Structures, np.ndarray]:
        """Structures in joined arrays, and the type of each atom, -1 where the model does not know it."""
        starts = np.cumsum([0, *map(len, frames)])
        numbers = np.concatenate([atoms.numbers for atoms in frames])
        joined = Structures(
            starts,
            np.concatenate([atoms.positions for atoms in frames]),
            np.array([atoms.cell.array for atoms in frames]),
            np.array([atoms.pbc for atoms in frames]),
        )
        return joined, number_types(numbers, self.engine.spec.type_names)


def _is_plain(structures: Structures, types: np.ndarray) -> np.ndarray:
    """Which structures are as most are: elements known, positions finite, cell full and upright or none, (f,) bool."""
    reach = np.abs(structures.positions).max(axis=1, initial=0.0)
    wrong = np.concatenate([[0], np.cumsum((types < 0) | ~(reach < _FAR))])  # true for NaN too
    good = wrong[structures.starts[1:]] == wrong[structures.starts[:-1]]
    cells = structures.cells
    lengths = np.linalg.norm(cells, axis=2)
    with np.errstate(invalid="ignore", over="ignore"):
        full = np.abs(np.linalg.det(cells)) > 1e-10 * np.prod(lengths, axis=1)
        full &= ~is_skewed(cells, structures.periodic)
    none = (lengths == 0).all(axis=1) & ~structures.periodic.any(axis=1)
    return good & ((full & (lengths < _FAR).all(axis=1)) | none)
