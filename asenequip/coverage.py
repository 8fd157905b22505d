"""What the training frames covered, in distances and neighbours, and where a structure leaves it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from asenequip.graph import Graph


class CoverageWarning(UserWarning):
    """Atoms left what the training frames covered; the text names them."""


MARGINS = {"distance": 0.98, "neighbours": 1.1}
"""A distance below this part of the shortest, or more than this many times the most neighbours, is not covered."""


@dataclass(frozen=True)
class Coverage:
    """Extremes over the training frames.

    Attributes
    ----------
    type_names : tuple of str
    shortest : (T, T) float64
        Least distance of an atom of the first type to one of the second, Angstrom; infinite where they never met.
    most : (T,) int64
        Most neighbours of an atom of the type within its cutoffs.
    """

    type_names: tuple[str, ...]
    shortest: np.ndarray
    most: np.ndarray

    @classmethod
    def of(cls, graphs: Iterable[Graph], type_names: Sequence[str]) -> Coverage:
        """The coverage of training frames, from their graphs."""
        count = len(type_names)
        shortest, most = np.full((count, count), np.inf), np.zeros(count, np.int64)
        for graph in graphs:
            types, neighbours, distances, pairs = _facts(graph)
            np.maximum.at(most, types, neighbours)
            np.minimum.at(shortest, (pairs[0], pairs[1]), distances)
        return cls(tuple(type_names), shortest, most)

    def to_record(self) -> dict[str, Any]:
        """JSON-able; None where two types never met."""
        shortest = [[float(d) if np.isfinite(d) else None for d in row] for row in self.shortest]
        return {
            "type_names": list(self.type_names),
            "shortest_distances": shortest,
            "most_neighbours": self.most.tolist(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Coverage:
        """From what `to_record` gave."""
        shortest = [[np.inf if d is None else d for d in row] for row in record["shortest_distances"]]
        return cls(tuple(record["type_names"]), np.array(shortest), np.array(record["most_neighbours"], np.int64))

    def breaches(self, graph: Graph) -> dict[str, str]:
        """Where a structure leaves what was covered.

        Parameters
        ----------
        graph : Graph
            Its types are those of this coverage.

        Returns
        -------
        dict of str to str
            By kind ("Cu-O distance", "Cu neighbours"), a sentence on the worst case that names its atoms.
        """
        names = self.type_names
        types, neighbours, distances, pairs = _facts(graph)
        found = {}
        ratio = distances / self.shortest[pairs[0], pairs[1]]  # 0 for a pair that never met
        near = np.flatnonzero(ratio < MARGINS["distance"])
        for z in near[np.argsort(-ratio[near])]:  # the worst of a kind comes last and stays
            a, b = names[pairs[0][z]], names[pairs[1][z]]
            known = self.shortest[pairs[0][z], pairs[1][z]]
            trained = (
                f"the shortest in training is {known:.2f} A" if np.isfinite(known) else "they never met in training"
            )
            atoms = f"{int(graph.centers[z])} and {int(graph.neighbors[z])}"
            found[f"{a}-{b} distance"] = f"atoms {atoms} ({a}, {b}) are {distances[z]:.2f} A apart; {trained}"
        excess = neighbours / np.maximum(self.most[types], 1)
        crowded = np.flatnonzero(excess > MARGINS["neighbours"])
        for n in crowded[np.argsort(excess[crowded])]:
            kind = names[types[n]]
            sentence = (
                f"atom {n} ({kind}) has {neighbours[n]} neighbours; the most in training are {self.most[types[n]]}"
            )
            found[f"{kind} neighbours"] = sentence
        return found


def _facts(graph: Graph) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Types (n,) and numbers of neighbours (n,) of the centres, distances (z,), and types of both ends, each (z,)."""
    everyone = graph.types.cpu().numpy()
    neighbours = np.diff(graph.ptr.cpu().numpy())
    distances = np.linalg.norm(graph.vectors().cpu().numpy(), axis=1)
    ends = everyone[graph.centers.cpu().numpy()], everyone[graph.neighbors.cpu().numpy()]
    return everyone[: len(neighbours)], neighbours, distances, ends


class CoverageGuard:
    """Tells where atoms come nearer to each other, or crowd more, than in the training frames.

    Parameters
    ----------
    calculator : asenequip.AllegroCalculator
        One whose potential carries the record of its training, see `coverage_record`.
    """

    def __init__(self, calculator: Any) -> None:
        record = coverage_record(calculator)
        if record is None:
            raise ValueError("The potential does not tell what its training covered. Train it with this version.")
        self.evaluator, self.coverage = calculator.evaluator, Coverage.from_record(record)
        self._told: set[str] = set()

    def news(self, atoms: Atoms) -> list[str]:
        """Sentences on kinds of breach that were not told before."""
        found = self.coverage.breaches(self.evaluator.graph(atoms))
        fresh = [sentence for kind, sentence in found.items() if kind not in self._told]
        self._told |= set(found)
        return fresh


def coverage_record(calculator: object) -> dict[str, Any] | None:
    """What a calculator's potential says of its training frames; None where it says nothing."""
    potential = getattr(getattr(calculator, "evaluator", None), "potential", None)
    training = getattr(potential, "provenance", {}).get("training", {})
    return training.get("coverage") if isinstance(training, dict) else None
