"""Frames described and labelled by the workers of a dask cluster, in order, with the numbers of one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from ase import Atoms
from numpy.typing import NDArray

from asenequip.cluster.descriptors import Descriptor, windowed

__all__ = ["CHUNK", "described", "labelled"]

CHUNK = 16
"""Frames of one task."""


def described(
    frames: Iterable[Atoms], descriptor: Descriptor, window: int, client: Any
) -> Iterator[tuple[int, Atoms, NDArray]]:
    """Describe frames as `windowed` does, on the workers of a client.

    Parameters
    ----------
    frames : iterable of ase.Atoms
    descriptor : callable
        Goes to the workers, so it must be picklable. What it learns from the first frame, as `SOAP` its elements, it
        learns here, so that all workers describe alike.
    window : int
        Odd number of frames that are averaged.
    client : dask.distributed.Client

    Yields
    ------
    index : int
    atoms : ase.Atoms
    rows : ndarray of float64, shape (n_atoms, n_features)
    """
    frames = iter(frames)
    first = list(islice(frames, 1))
    for atoms in first:
        descriptor(atoms)
    for part in _in_order(client, _describe, chain(first, frames), window // 2, descriptor, window):
        yield from part


def labelled(frames: Iterable[Atoms], model: Any, client: Any) -> Iterator[Atoms]:
    """Yield the frames that `EnvironmentClusters.stream` yields, labelled by the workers of a client.

    Parameters
    ----------
    frames : iterable of ase.Atoms
    model : EnvironmentClusters
        Fitted; it goes to each worker once.
    client : dask.distributed.Client

    Yields
    ------
    ase.Atoms
    """
    for part in _in_order(client, _label, frames, model.window // 2, model):
        yield from part


def _describe(piece: tuple[int, list[Atoms], int, int], descriptor: Descriptor, window: int) -> list:
    first, frames, low, high = piece
    found = list(windowed(frames, descriptor, window))[low:high]
    return [(first + place, atoms, rows) for place, (_, atoms, rows) in enumerate(found)]


def _label(piece: tuple[int, list[Atoms], int, int], model: Any) -> list[Atoms]:
    first, frames, low, high = piece
    found = list(windowed(frames, model.descriptor, model.window))[low:high]
    return [model.label(atoms, rows, first + place) for place, (_, atoms, rows) in enumerate(found)]


def _pieces(frames: Iterable[Atoms], half: int) -> Iterator[tuple[int, list[Atoms], int, int]]:
    """Cut frames into chunks with `half` frames more at either end; give number, frames, and which are its own."""
    held: list[Atoms] = []
    first, before = 0, 0
    for atoms in frames:
        held.append(atoms)
        if len(held) == before + CHUNK + half:
            yield first, list(held), before, before + CHUNK
            first += CHUNK
            kept = min(before + CHUNK, half)
            del held[: before + CHUNK - kept]
            before = kept
    if len(held) > before:
        yield first, held, before, len(held)


def _in_order(client: Any, function: Callable, frames: Iterable[Atoms], half: int, shared: Any, *more: Any) -> Iterator:
    """Submit chunks, a few more than there are workers, and give the results in the order of the frames."""
    shared = client.scatter(shared, broadcast=True, hash=False)
    ahead = 2 * max(1, sum(client.nthreads().values()))
    waiting: deque[Any] = deque()
    for piece in _pieces(frames, half):
        waiting.append(client.submit(function, piece, shared, *more, pure=False))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
