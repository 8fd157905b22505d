"""Zeros of energy that data sets have of their own, fitted to what the network predicts while it learns.

Least squares on the labels alone cannot tell a zero from energies of formation: two sets that hold the same crystal
would then ask for different energies of it. The network, which sees both, can. The zeros follow it closely from the
first steps on, so that it learns differences of energy from such a set, and their common level from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import sum_frames
from asenequip.train.config import Dataset
from asenequip.train.data import Batch, Sample, collate
from asenequip.train.statistics import least_squares_shifts
from asenequip.train.table import FrameTable

_STEPS = 20
"""Optimiser steps between two fits."""
_FRAMES = 32
"""Frames of a data set that its zero is fitted on, at most,"""
_EDGES = 4
"""and how many mean batches their edges may be: the fits then take a few hundredths of the time."""


class Zeros:
    """Keeps the zeros of the data sets with ``own_shifts`` at the network's.

    Parameters
    ----------
    samples : sequence of Sample
        The training frames.
    table : FrameTable
        Of them.
    datasets : sequence of Dataset
    loaded : (d, T) float64
        Energy per atom of each data set and type that is taken off the labels as batches are loaded, eV.
    batch_size : int
        Frames of a batch.

    Attributes
    ----------
    frames : dict of int to list of int
        Positions of the frames, evenly spread, that each zero is fitted on; a set without labels is absent.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        table: FrameTable,
        datasets: Sequence[Dataset],
        loaded: np.ndarray,
        batch_size: int,
    ) -> None:
        self.samples, self.table, self.loaded = samples, table, loaded
        self.frames: dict[int, list[int]] = {}
        edges = table.num_edges()
        for k in (k for k, dataset in enumerate(datasets) if dataset.own_shifts):
            mine = np.flatnonzero((table.datasets == k) & np.isfinite(table.energies))
            if len(mine):
                affordable = int(_EDGES * batch_size * edges.mean() / max(edges[mine].mean(), 1.0))
                count = min(max(affordable, 2), _FRAMES)
                self.frames[k] = mine[np.unique(np.linspace(0, len(mine) - 1, count).round().astype(int))].tolist()

    def due(self, step: int) -> bool:
        """Whether the zeros are to be fitted after a step."""
        return bool(self.frames) and step % _STEPS == 0

    def put(self, batch: Batch, frames: Sequence[int], offsets: np.ndarray) -> Batch:
        """A batch as loaded, with the present offsets taken off its labels.

        Parameters
        ----------
        batch : Batch
            May be filled up with frames without labels.
        frames : sequence of int
            Positions of its frames among the training frames.
        offsets : (d, T) float64
        """
        if not self.frames:
            return batch
        rows = self.table.take(frames)
        change = (rows.atoms * (offsets - self.loaded)[rows.datasets]).sum(axis=1)
        energies = batch.energies.clone()
        energies[: len(change)] -= torch.from_numpy(change)
        return replace(batch, energies=energies)

    def fit(self, model: Allegro, offsets: np.ndarray) -> np.ndarray:
        """Offsets that leave no mean error, for any composition, on the frames of each set.

        Parameters
        ----------
        model : Allegro
        offsets : (d, T) float64
            The present ones, eV.

        Returns
        -------
        (d, T) float64, eV
        """
        found = offsets.copy()
        for k, frames in self.frames.items():
            residuals = [_residual(model, self.samples[frame], offsets) for frame in frames]
            found[k] += least_squares_shifts(self.table.take(frames).atoms, np.array(residuals))
        return found


@torch.no_grad()
def _residual(model: Allegro, sample: Sample, offsets: np.ndarray) -> float:
    """Labelled minus predicted energy of a frame, eV."""
    batch = collate([sample], offsets).to(model.device)
    graph = batch.graph
    neighbor_types = graph.types.index_select(0, graph.neighbors)
    energies = model.local(graph.vectors(), graph.types, neighbor_types, graph.centers, graph.ptr).energies
    return float(batch.energies[0] - sum_frames(graph, energies)[0])
