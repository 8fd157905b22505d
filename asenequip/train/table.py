"""What training must know of every frame without its arrays: sizes, composition, which labels there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from asenequip.train.data import Sample


@dataclass(frozen=True)
class FrameTable:
    """One row per frame; a few dozen bytes each, so that the table of any data set fits in memory.

    Attributes
    ----------
    datasets : (f,) int64
        See `data.Frame.dataset`.
    weights : (f,) float64
    energies : (f,) float64
        eV; NaN without label.
    atoms : (f, T) int64
        Number of atoms of each type.
    edges : (f, T) int64
        Number of edges whose centre is of each type.
    labelled : (f, T) int64
        Number of atoms of each type whose forces are known.
    squares : (f, T) float64
        Sum of the squares of their force components, (eV/Angstrom)^2.
    has_stress : (f,) bool
    """

    datasets: np.ndarray
    weights: np.ndarray
    energies: np.ndarray
    atoms: np.ndarray
    edges: np.ndarray
    labelled: np.ndarray
    squares: np.ndarray
    has_stress: np.ndarray

    def __len__(self) -> int:
        return len(self.datasets)

    def take(self, rows: Sequence[int] | np.ndarray) -> FrameTable:
        """The table of some of its frames."""
        chosen = np.asarray(rows, dtype=np.int64)
        return FrameTable(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def num_edges(self) -> np.ndarray:
        """Edges of each frame, (f,) int64."""
        return self.edges.sum(axis=1)


def tabulate(samples: Sequence[Sample], num_types: int) -> FrameTable:
    """The table of samples: their own where they carry one (``samples.table``), else counted from them."""
    table = getattr(samples, "table", None)
    return table if isinstance(table, FrameTable) else stack_rows([row_of(s, num_types) for s in samples], num_types)


def row_of(sample: Sample, num_types: int) -> tuple[object, ...]:
    """The row of one sample, in the order of the table's columns."""
    frame, graph = sample.frame, sample.graph
    types = graph.types.cpu().numpy()
    known = np.isfinite(frame.forces).all(axis=1)

    def per_type(chosen: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(chosen, weights=weights, minlength=num_types)

    return (
        frame.dataset,
        frame.weight,
        frame.energy,
        per_type(types),
        per_type(types, np.diff(graph.ptr.cpu().numpy()).astype(np.float64)),
        per_type(types[known]),
        per_type(types[known], (frame.forces[known] ** 2).sum(axis=1)),
        bool(np.isfinite(frame.stress).all()) and frame.atoms.cell.rank == 3,
    )


def stack_rows(rows: Sequence[tuple[object, ...]], num_types: int) -> FrameTable:
    """Rows from `row_of` as a table."""
    kinds = (np.int64, np.float64, np.float64, np.int64, np.int64, np.int64, np.float64, bool)
    columns = []
    for k, (field, kind) in enumerate(zip(fields(FrameTable), kinds, strict=True)):
        shape = (len(rows), num_types) if field.name in ("atoms", "edges", "labelled", "squares") else (len(rows),)
        columns.append(np.array([row[k] for row in rows], dtype=kind).reshape(shape))
    return FrameTable(*columns)


def sources_of(samples: Sequence[Sample]) -> list[str]:
    """File and position of each sample, without reading its arrays where it carries them apart."""
    sources = getattr(samples, "sources", None)
    return list(sources) if sources is not None else [sample.frame.source for sample in samples]


def names_of(samples: Sequence[Sample]) -> list[str]:
    """Data set of each sample, likewise."""
    names = getattr(samples, "names", None)
    return list(names) if names is not None else [sample.frame.name for sample in samples]
