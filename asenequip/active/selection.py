"""Which of many frames to label: uncertain, unlike what is known, unlike one another, and none twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from asenequip.cluster.neighbours import cross_neighbours
from asenequip.errors import parameter_error

METHODS = ("random", "uncertain", "diverse", "novel", "sparse", "mixed")
UNSURE = ("uncertain", "mixed")
"""Methods that ask for the uncertainty of frames."""
JUDGES = {"novel": "Novelty", "sparse": "Sparsity"}
"""Methods that judge by `asenequip.active.novelty`, and what of it they take."""
DUPLICATE = 1e-4
"""Rows of `describe_frames` at most this far apart are of one structure: in single precision those of its turned and
renumbered copies are some 1e-6 apart, those of frames a femtosecond apart 1e-2."""
_ROUNDING = 1e-5
"""Deviations of a feature below this part of its mean are single precision's, and not scaled up."""


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


def drop_duplicates(points: np.ndarray, known: np.ndarray | None = None, tolerance: float = DUPLICATE) -> np.ndarray:
    """Positions of the points that are unlike each earlier one and unlike all known ones.

    By a KD-tree: 20,000 points of 400 coordinates take seconds.

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
    from scipy.spatial import KDTree

    points = np.asarray(points, np.float64)
    kept = np.ones(len(points), bool)
    tree = KDTree(points)
    for point in () if known is None else np.asarray(known, np.float64):
        kept[tree.query_ball_point(point, tolerance)] = False
    for k, point in enumerate(points):
        if kept[k]:
            kept[tree.query_ball_point(point, tolerance)] = False
            kept[k] = True
    return np.flatnonzero(kept)


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
        distance = cross_neighbours(points, np.asarray(known, np.float64), 1)[0][:, 0]
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


def one_of_each(
    points: np.ndarray,
    elements: Sequence[Collection[str]],
    known: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> list[int]:
    """For each element in turn that no point chosen here has, the farthest point among those that have it.

    Parameters
    ----------
    points : (m, d) float64
    elements : sequence of m collections of str
        Of each point, the elements that are to be covered.
    known, weights
        See `farthest_points`.

    Returns
    -------
    list of int
        At most as many as there are elements.
    """
    points = np.asarray(points, np.float64)
    chosen: list[int] = []
    for element in sorted({name for names in elements for name in names}):
        if not any(element in elements[k] for k in chosen):
            having = np.array([k for k, names in enumerate(elements) if element in names])
            before = points[chosen] if known is None else np.concatenate([known, points[chosen]])
            weight = None if weights is None else weights[having]
            chosen.append(int(having[farthest_points(points[having], 1, before, weight)[0]]))
    return chosen


def select(
    points: np.ndarray,
    count: int,
    *,
    method: str = "mixed",
    uncertainties: np.ndarray | None = None,
    novelties: np.ndarray | None = None,
    elements: Sequence[Collection[str]] | None = None,
    known: np.ndarray | None = None,
    tolerance: float = DUPLICATE,
    seed: int = 0,
) -> Selection:
    """Choose points to label.

    Parameters
    ----------
    points : (m, d) float64
        Descriptors of the candidates.
    count : int
        At most so many are chosen.
    method : {"mixed", "uncertain", "diverse", "novel", "sparse", "random"}
        "uncertain": the largest uncertainties. "diverse": farthest points, also from the known ones. "novel": the
        largest novelties. "sparse": farthest points with distances weighted by novelties, those of 0 or less last.
        "mixed": farthest points whose distances are weighted by uncertainty (and novelty, each in
        units of its median), so that a batch is uncertain without being all alike; before these, one for each of the
        ``elements``.
    uncertainties, novelties : (m,) float64, optional
        What the methods of these names need.
    elements : sequence of m collections of str, optional
        Of each candidate, the elements that nothing known has. What a potential says of these is made up, its
        uncertainty too, and where they are few among an alloy's or a compound's atoms the descriptors change little.
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
    needs = {"uncertain": ("uncertainties", uncertainties), **dict.fromkeys(JUDGES, ("novelties", novelties))}
    name, values = needs.get(method, ("", ()))
    if values is None:
        raise parameter_error(name, "select", f'given for the method "{method}"', values)
    points = np.asarray(points, np.float64)
    kept = drop_duplicates(points, known, tolerance)
    if method == "random":
        chosen = np.random.default_rng(seed).permutation(len(kept))[:count]
    elif method == "uncertain" or method == "novel":
        values = uncertainties if method == "uncertain" else novelties
        chosen = np.argsort(-np.asarray(values, np.float64)[kept], kind="stable")[:count]
    else:
        weights = None
        if method == "mixed":
            weights = np.ones(len(kept))
            for values in (uncertainties, novelties):
                weights = weights * (1.0 if values is None else _relative(np.asarray(values, np.float64)[kept]))
        elif method == "sparse":
            weights = _positive(np.asarray(novelties, np.float64)[kept])
        first: list[int] = []
        if method == "mixed" and elements is not None:
            first = one_of_each(points[kept], [elements[k] for k in kept], known, weights)[:count]
        chosen = _go_on(points[kept], int(count), first, known, weights)
    indices = kept[chosen]
    return Selection(indices, [_reason(method, k, uncertainties, novelties, elements) for k in indices])


def _go_on(
    points: np.ndarray, count: int, first: list[int], known: np.ndarray | None, weights: np.ndarray | None
) -> np.ndarray:
    """Add farthest points to the first ones, up to a count of all."""
    if not first:
        return farthest_points(points, count, known, weights)
    left = np.setdiff1d(np.arange(len(points)), first)
    before = points[first] if known is None else np.concatenate([known, points[first]])
    more = farthest_points(points[left], count - len(first), before, None if weights is None else weights[left])
    return np.concatenate([first, left[more]])


def _relative(values: np.ndarray) -> np.ndarray:
    """Values in units of their median, all of them positive and finite."""
    values = _positive(values)
    return values / np.median(values) if len(values) else values


def _positive(values: np.ndarray) -> np.ndarray:
    """Values, infinite ones as large as is safe, with a trifle in place of those that are not positive numbers."""
    limit = values[np.isfinite(values)].max(initial=1.0)
    return np.clip(np.where(np.isnan(values), 0.0, values), 1e-9 * limit, 1e9 * limit)


def _reason(
    method: str,
    k: int,
    uncertainties: np.ndarray | None,
    novelties: np.ndarray | None,
    elements: Sequence[Collection[str]] | None,
) -> str:
    parts = [method]
    parts += [] if not elements else [f"new element {name}" for name in sorted(elements[k])]
    parts += [] if uncertainties is None else [f"uncertainty {uncertainties[k]:.3g}"]
    parts += [] if novelties is None else [f"novelty {novelties[k]:.3g}"]
    return ", ".join(parts)


# -- of Atoms ---------------------------------------------------------------------------------------------------------


def describe_frames(
    frames: Sequence[Atoms], descriptor: Callable[[Atoms], np.ndarray], species: Sequence[int] | None = None
) -> np.ndarray:
    """One row per frame: mean and deviation of its atoms' descriptors for each species, times the species' share.

    Features are centred and scaled to deviation 1 over all atoms of a species. Without the shares, frames with few
    atoms of a species would seem to differ most, since a mean of few varies most.

    Parameters
    ----------
    frames : sequence of ase.Atoms
    descriptor : callable
        Rows (n, d) of a frame's atoms.
    species : sequence of int, optional
        Atomic numbers in the order of the result; those of the frames unless given.

    Returns
    -------
    (m, len(species) (2 d + 1)) float64
        Per species: share of the atoms, and share times means and deviations.
    """
    if species is None:
        species = sorted({int(z) for atoms in frames for z in atoms.numbers})
    moments = np.array([_moments(np.asarray(descriptor(a), np.float64), a.numbers, species) for a in frames])
    counts, means, deviations = np.split(moments, [1, (moments.shape[-1] + 1) // 2], axis=-1)
    totals = np.maximum(counts.sum(axis=0), 1.0)
    center = (counts * means).sum(axis=0) / totals
    unit = np.sqrt((counts * ((means - center) ** 2 + deviations**2)).sum(axis=0) / totals)
    unit = np.where(unit > _ROUNDING * np.abs(center), unit, 1.0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    rows = np.concatenate([np.ones_like(counts), (means - center) / unit, deviations / unit], axis=-1)
    return (shares * rows).reshape(len(moments), -1)


def _moments(rows: np.ndarray, numbers: np.ndarray, species: Sequence[int]) -> np.ndarray:
    """Number, means and deviations of the rows of each species, (len(species), 2 d + 1); zeros where it is absent."""
    found = np.zeros((len(species), 2 * rows.shape[1] + 1))
    for k, number in enumerate(species):
        mine = rows[np.asarray(numbers) == number]
        if len(mine):
            found[k] = np.concatenate([[len(mine)], mine.mean(axis=0), mine.std(axis=0)])
    return found


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
    """Choose frames to label, by their rows of `describe_frames`.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Candidates.
    count : int
    descriptor : callable
        Rows (n, d) of a frame's atoms, such as ``calculator.descriptors``.
    method : str
        See `select`. The novelty of a frame is the largest of its atoms': for "novel" that of
        `asenequip.active.Novelty`, the distance to the nearest known environments; for "sparse" that of
        `asenequip.active.Sparsity`, which is above 0 outside of all their clusters.
    uncertainty : callable, optional
        Of a frame, such as ``lambda atoms: frame_deviation(calculator.evaluator, atoms)``, see
        `asenequip.uncertainty.frame_deviation`; asked by "mixed" and "uncertain" alone.
    known : sequence of ase.Atoms
        Frames that are labelled already.
    seed : int

    Returns
    -------
    Selection
    """
    if not len(frames):
        return Selection(np.zeros(0, int), [])
    every = describe_frames([*frames, *known], descriptor)
    points, before = every[: len(frames)], every[len(frames) :]
    uncertainties = None
    if uncertainty is not None and method in UNSURE:
        uncertainties = np.array([uncertainty(atoms) for atoms in frames])
    novelties = None
    if method in JUDGES:
        from asenequip.active import novelty

        if not len(known):
            raise parameter_error("known", "select_frames", f'at least one frame, for the method "{method}"', known)
        judge = getattr(novelty, JUDGES[method])(descriptor).fit(known)
        novelties = np.array([judge(atoms).max(initial=0.0) for atoms in frames])
    old = {symbol for atoms in known for symbol in atoms.symbols}
    return select(
        points,
        count,
        method=method,
        uncertainties=uncertainties,
        novelties=novelties,
        elements=[set(atoms.symbols) - old for atoms in frames] if old else None,
        known=before,
        seed=seed,
    )
