"""Which frames make up each step, and joining them into batches, ahead of the training if wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from asenequip.train.config import Dataset
from asenequip.train.data import Batch, Sample, collate
from asenequip.train.distributed import Team
from asenequip.train.padding import Shapes


def pack(order: Sequence[int], edges: Sequence[int], size: int, budget: int | None) -> list[list[int]]:
    """Divide frames, in order, in batches of at most ``size`` frames and ``budget`` edges; one frame may be over it.

    Each batch follows from the first frame that is not in an earlier one: from a batch's first frame on, the rest of
    an order packs as it does within the whole.
    """
    batches: list[list[int]] = []
    total = 0
    for k in order:
        full = not batches or len(batches[-1]) == size or (budget is not None and total + edges[k] > budget)
        if full:
            batches.append([])
            total = 0
        batches[-1].append(k)
        total += edges[k]
    return batches


def epoch_order(seed: int, epoch: int, datasets: np.ndarray, settings: Sequence[Dataset]) -> np.ndarray:
    """Positions of the frames of an epoch, shuffled: a matter of the seed and the epoch alone.

    Parameters
    ----------
    seed, epoch : int
    datasets : (f,) int64
        Data set of each frame.
    settings : sequence of Dataset
        Of a data set with ``per_epoch``, so many frames are drawn without replacement.
    """
    random = np.random.default_rng([seed, epoch])
    if all(dataset.per_epoch is None for dataset in settings):
        return random.permutation(len(datasets))
    chosen = []
    for k in np.unique(datasets).tolist():
        mine, wanted = np.flatnonzero(datasets == k), settings[k].per_epoch
        if wanted is not None:
            count = max(1, round(wanted * len(mine))) if wanted < 1 else min(round(wanted), len(mine))
            mine = random.choice(mine, count, replace=False)
        chosen.append(mine)
    return random.permutation(np.concatenate(chosen))


@dataclass(frozen=True)
class Loader:
    """Reads and joins the frames of batches, each process its share.

    Attributes
    ----------
    samples : sequence of Sample
    offsets : (d, T) float64
        Energy per atom of each data set and type taken off the labels, eV.
    team : Team
    workers : int
        Processes that work ahead; the order and the numbers are the same with any number of them.
    shapes : Shapes or None
        Sizes that batches are filled up to.
    """

    samples: Sequence[Sample]
    offsets: np.ndarray
    team: Team = Team()  # noqa: RUF009 (immutable)
    workers: int = 0
    shapes: Shapes | None = None

    def load(self, batches: Sequence[Sequence[int]]) -> Iterator[Batch | None]:
        """The batches in order; None where nothing of a batch falls to this process."""
        jobs = _Jobs(self, batches)
        if not self.workers:
            return (jobs[k] for k in range(len(jobs)))
        options: dict[str, Any] = {"generator": torch.Generator().manual_seed(0), "collate_fn": _as_it_is}
        return iter(torch.utils.data.DataLoader(jobs, batch_size=None, num_workers=self.workers, **options))

    def one(self, batch: Sequence[int]) -> Batch | None:
        """One batch."""
        mine = [self.samples[k] for k in self.team.share(batch)]
        if not mine:
            return None
        joined = collate(mine, self.offsets)
        return joined if self.shapes is None else self.shapes.pad(joined)


class _Jobs(torch.utils.data.Dataset[Any]):
    """The batches of an epoch as torch's DataLoader wants them."""

    def __init__(self, loader: Loader, batches: Sequence[Sequence[int]]) -> None:
        self.loader, self.batches = loader, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, k: int) -> Batch | None:
        return self.loader.one(self.batches[k])


def _as_it_is(batch: Batch | None) -> Batch | None:
    return batch
