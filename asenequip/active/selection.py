"""Which of many frames to label: uncertain, unlike what is known, unlike one another, and none twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from asenequip.errors import parameter_error

METHODS = ("random", "uncertain", "diverse", "novel", "mixed")


@dataclass(frozen=True)
class Selection:
    """What was chosen, and why.

    Attributes
    ----------
    indices : (k,) int
        Positions among the candidates, in the order chosen.
    reasons : list of str
        One per index.
    """

    indices: np.ndarray
    reasons: list[str]


def drop_duplicates(points: np.ndarray, known: np.ndarray | None = None, tolerance: float = 1e-6) -> np.ndarray:
    """Positions of the points that are unlike each earlier one and unlike all known ones.

    Parameters
    ----------
    points : (m, d) float64
    known : (k, d) float64, optional
    tolerance : float
        Points at most this far from one that is kept are duplicates of it.

    Returns
    -------
    (k,) int
        Ascending.
    """
    points = np.asarray(points, np.float64)
    kept: list[int] = []
    base = np.zeros((0, points.shape[1])) if known is None else np.asarray(known, np.float64)
    for k, point in enumerate(points):
        near = [base, points[kept]]
        if all(not len(group) or np.linalg.norm(group - point, axis=1).min() > tolerance for group in near):
            kept.append(k)
    return np.array(kept, int)


def farthest_points(
    points: np.ndarray, count: int, known: np.ndarray | None = None, weights: np.ndarray | None = None
) -> np.ndarray:
    """Greedy farthest-point choice: each new point has the largest distance to those chosen and known.

    Gonzalez, Theor. Comput. Sci. 38, 293 (1985): the largest distance left is at most twice the least possible.

    Parameters
    ----------
    points : (m, d) float64
    count : int
    known : (k, d) float64, optional
        Points that count as chosen already. Without them the first is the point of the largest weight, or the one
        farthest from the mean.
    weights : (m,) float64, optional
        Factors on the distances, such as uncertainties: uncertain and diverse at once.

    Returns
    -------
    (min(count, m),) int
        In the order chosen.
    """
    points = np.asarray(points, np.float64)
    weight = np.ones(len(points)) if weights is None else np.asarray(weights, np.float64)
    if known is not None and len(known):
        distance = np.full(len(points), np.inf)
        for one in np.asarray(known, np.float64):
            np.minimum(distance, np.linalg.norm(points - one, axis=1), out=distance)
    else:
        distance = np.linalg.norm(points - points.mean(axis=0), axis=1) if len(points) else np.zeros(0)
        distance = distance if weights is None else np.ones(len(points))
    chosen: list[int] = []
    started = known is not None and len(known) > 0
    while len(chosen) < min(count, len(points)):
        score = distance * weight
        score[chosen] = -np.inf
        best = int(np.argmax(score))
        chosen.append(best)
        reach = np.linalg.norm(points - points[best], axis=1)
        distance = np.minimum(distance, reach) if started else reach
        started = True
    return np.array(chosen, int)


def select(
    points: np.ndarray,
    count: int,
    *,
    method: str = "mixed",
    uncertainties: np.ndarray | None = None,
    novelties: np.ndarray | None = None,
    known: np.ndarray | None = None,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Selection:
    """Choose points to label.

    Parameters
    ----------
    points : (m, d) float64
        Descriptors of the candidates.
    count : int
        At most so many are chosen.
    method : {"mixed", "uncertain", "diverse", "novel", "random"}
        "uncertain": the largest uncertainties. "diverse": farthest points, also from the known ones. "novel": the
        largest novelties. "mixed": farthest points whose distances are weighted by uncertainty (and novelty, each in
        units of its median), so that a batch is uncertain without being all alike.
    uncertainties, novelties : (m,) float64, optional
        What the methods of these names need.
    known : (k, d) float64, optional
        Descriptors of what is labelled already.
    tolerance : float
        See `drop_duplicates`, which comes first.
    seed : int
        Of "random".

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        For an unknown method, or one whose numbers are missing.
    """
    if method not in METHODS:
        raise parameter_error("method", "select", "one of " + ", ".join(f'"{m}"' for m in METHODS), method)
    if not isinstance(count, (int, np.integer)) or count < 0:
        raise parameter_error("count", "select", "an integer >= 0", count)
    for name, needed, values in (("uncertainties", "uncertain", uncertainties), ("novelties", "novel", novelties)):
        if method == needed and values is None:
            raise parameter_error(name, "select", f'given for the method "{needed}"', values)
    points = np.asarray(points, np.float64)
    kept = drop_duplicates(points, known, tolerance)
    if method == "random":
        chosen = np.random.default_rng(seed).permutation(len(kept))[:count]
    elif method == "uncertain" or method == "novel":
        values = uncertainties if method == "uncertain" else novelties
        chosen = np.argsort(-np.asarray(values, np.float64)[kept], kind="stable")[:count]
    else:
        weights = np.ones(len(kept))
        if method == "mixed":
            for values in (uncertainties, novelties):
                weights = weights * (1.0 if values is None else _relative(np.asarray(values, np.float64)[kept]))
        chosen = farthest_points(points[kept], int(count), known, weights if method == "mixed" else None)
    indices = kept[chosen]
    return Selection(indices, [_reason(method, k, uncertainties, novelties) for k in indices])


def _relative(values: np.ndarray) -> np.ndarray:
    """Values in units of their median; ones where that is zero."""
    middle = float(np.median(values)) if len(values) else 0.0
    return values / middle if middle > 0 else np.ones(len(values))


def _reason(method: str, k: int, uncertainties: np.ndarray | None, novelties: np.ndarray | None) -> str:
    parts = [method]
    parts += [] if uncertainties is None else [f"uncertainty {uncertainties[k]:.3g}"]
    parts += [] if novelties is None else [f"novelty {novelties[k]:.3g}"]
    return ", ".join(parts)


# -- of Atoms ---------------------------------------------------------------------------------------------------------


def frame_descriptor(rows: np.ndarray, numbers: np.ndarray, species: Sequence[int]) -> np.ndarray:
    """Descriptor of a frame: mean and standard deviation of its atoms' descriptors, species by species.

    Parameters
    ----------
    rows : (n, d) float64
    numbers : (n,) int
        Atomic numbers.
    species : sequence of int
        Atomic numbers that frames may hold, in the order of the result.

    Returns
    -------
    (len(species) (2 d + 1),) float64
        Per species: share of the atoms, means, deviations, zero where it is absent.
    """
    parts = []
    for number in species:
        mine = rows[np.asarray(numbers) == number]
        mean = mine.mean(axis=0) if len(mine) else np.zeros(rows.shape[1])
        spread = mine.std(axis=0) if len(mine) else np.zeros(rows.shape[1])
        parts += [[len(mine) / max(len(rows), 1)], mean, spread]
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def describe_frames(
    frames: Sequence[Atoms], descriptor: Callable[[Atoms], np.ndarray], species: Sequence[int] | None = None
) -> np.ndarray:
    """`frame_descriptor` of each frame, (m, ...) float64; the species are those of the frames unless given."""
    if species is None:
        species = sorted({int(z) for atoms in frames for z in atoms.numbers})
    return np.array([frame_descriptor(np.asarray(descriptor(a)), a.numbers, species) for a in frames])


def select_frames(
    frames: Sequence[Atoms],
    count: int,
    descriptor: Callable[[Atoms], np.ndarray],
    *,
    method: str = "mixed",
    uncertainty: Callable[[Atoms], float] | None = None,
    known: Sequence[Atoms] = (),
    seed: int = 0,
) -> Selection:
    """Choose frames to label.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Candidates.
    count : int
    descriptor : callable
        Rows (n, d) of a frame's atoms, such as ``calculator.descriptors``.
    method : str
        See `select`; "novel" takes the distance to the nearest known environments.
    uncertainty : callable, optional
        Of a frame, such as ``lambda atoms: calculator.uncertainty(atoms).max_force``.
    known : sequence of ase.Atoms
        Frames that are labelled already.
    seed : int

    Returns
    -------
    Selection
    """
    species = sorted({int(z) for atoms in [*frames, *known] for z in atoms.numbers})
    points = describe_frames(frames, descriptor, species)
    before = describe_frames(known, descriptor, species) if len(known) else None
    uncertainties = None if uncertainty is None else np.array([uncertainty(atoms) for atoms in frames])
    novelties = None
    if method == "novel":
        from asenequip.active.novelty import Novelty

        if not len(known):
            raise parameter_error("known", "select_frames", 'at least one frame, for the method "novel"', known)
        judge = Novelty(descriptor).fit(known)
        novelties = np.array([judge(atoms).max(initial=0.0) for atoms in frames])
    return select(
        points, count, method=method, uncertainties=uncertainties, novelties=novelties, known=before, seed=seed
    )
