"""The training loop: batches in a reproducible order, optimiser steps, validation, checkpoints."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from asenequip.model.allegro import Allegro
from asenequip.train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    pack_optimizer,
    save_checkpoint,
    unpack_optimizer,
)
from asenequip.train.config import Config
from asenequip.train.data import Batch, Sample, collate
from asenequip.train.distributed import Team
from asenequip.train.loss import LossFunction
from asenequip.train.metrics import validate
from asenequip.train.schedule import MovingAverage, Plateau, learning_rate, make_optimizer
from asenequip.train.step import Step, batch_residuals, compiled_step, eager_step


class NonFiniteLossError(ArithmeticError):
    """The loss of a frame is not a number; the text names the frame."""


class Interrupted(Exception):  # noqa: N818 (not an error: the state is saved and can be resumed)
    """Training was asked to stop and has saved its state."""


@dataclass
class Progress:
    """Where training stands.

    Attributes
    ----------
    epoch, batch, step : int
        Epochs done, batches done of the present one, optimiser steps taken.
    seconds : float
        Time spent training, over all continuations.
    sums, weights : list of float
        Weighted penalties of the present epoch; see `LossFunction.terms`.
    best : float
        Lowest validation loss.
    best_epoch : int
    rows : list of dict
        One row of metrics per validated epoch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * 3)
    weights: list[float] = field(default_factory=lambda: [0.0] * 3)
    best: float = math.inf
    best_epoch: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """What the loop tells its watcher: a step or a finished epoch ("row" is then there)."""

    progress: Progress
    loss: float
    rate: float
    part: float
    row: dict[str, float] | None = None


def pack(order: Sequence[int], edges: Sequence[int], size: int, budget: int | None) -> list[list[int]]:
    """Divide frames, in order, in batches of at most ``size`` frames and ``budget`` edges; one frame may be over it."""
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


class Trainer:
    """Trains a model on samples; its whole state goes into checkpoints.

    Parameters
    ----------
    model : Allegro
        On its device, in its precision; trained in place.
    config : Config
    train, valid : sequences of Sample
    offsets : (d, T) float64
        Energy per atom of each data set and type taken off the labels, eV.
    folder : Path
        Checkpoints go here.
    watch : callable, optional
        Gets an `Event` after each step and each epoch.
    team : Team
        The processes that share each batch.
    """

    def __init__(
        self,
        model: Allegro,
        config: Config,
        train: Sequence[Sample],
        valid: Sequence[Sample],
        offsets: np.ndarray,
        folder: Path,
        watch: Callable[[Event], None] | None = None,
        team: Team = Team(),  # noqa: B008 (immutable)
    ) -> None:
        self.model, self.config, self.folder = model, config, folder
        self.train, self.valid, self.offsets, self.team = train, valid, offsets, team
        self.watch = watch or (lambda event: None)
        self.loss = LossFunction(config.loss, model.spec.type_names)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.parameters, config.training)
        self.average = MovingAverage.of(self.parameters, config.training.ema)
        self.plateau = Plateau()
        self.progress = Progress()
        self.gradients: Step = eager_step(model, self.loss)
        self._known_order: tuple[int, list[list[int]]] = (-1, [])
        self._stop = False
        self._saved = time.monotonic()

    def run(self) -> None:
        """Train to the end of the schedule.

        Raises
        ------
        Interrupted
            After SIGINT or SIGTERM, once the state is saved.
        NonFiniteLossError
            If the loss of a frame is not a number.
        """
        settings, progress = self.config.training, self.progress
        with self._signals():
            started = time.monotonic() - progress.seconds
            while progress.epoch < settings.epochs and not self._out_of_time() and not self._stale():
                for chosen in self._epoch_batches(progress.epoch, progress.batch):
                    self._step(chosen, started)
                    if self._out_of_time():
                        break
                    if self._stop or self._due():
                        self.save()
                        if self._stop:
                            raise Interrupted
                self._finish_epoch()
            self.save()

    def compile(self) -> None:
        """Compile the training step, on the first and the largest batch.

        Raises
        ------
        RuntimeError
            If it cannot be compiled, or gives other gradients; the eager step then stays.
        """
        size = self.config.training.batch_size
        largest = sorted(self.train, key=lambda sample: sample.graph.num_edges)[-size:]
        device = self.model.device
        batches = [
            (collate(part, self.offsets).to(device), self.loss.divisors(part).to(device))
            for part in (self.train[:size], largest[1:] or largest)
        ]
        self.gradients = compiled_step(self.model, self.loss, batches)

    def fraction(self) -> float:
        """Part of the training that is done, 0-1: by epochs, or by time where that is further on."""
        settings, progress = self.config.training, self.progress
        count = len(self._order(progress.epoch)) if progress.batch else 1
        done = (progress.epoch + progress.batch / count) / settings.epochs
        if settings.minutes is not None:
            done = max(done, progress.seconds / (60 * settings.minutes))
        return min(1.0, done)

    def _out_of_time(self) -> bool:
        minutes = self.config.training.minutes
        return minutes is not None and self.progress.seconds >= 60 * minutes

    def _stale(self) -> bool:
        patience = self.config.training.early_stopping
        return patience is not None and self.progress.epoch - self.progress.best_epoch > patience

    def _epoch_batches(self, epoch: int, skip: int) -> Iterator[list[Sample]]:
        """Batches of an epoch from number ``skip`` on."""
        for chosen in self._order(epoch)[skip:]:
            yield [self.train[k] for k in chosen]

    def _order(self, epoch: int) -> list[list[int]]:
        """Positions of the frames of each batch of an epoch: a matter of the seed and the epoch alone."""
        if self._known_order[0] != epoch:
            settings = self.config.training
            shuffled = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.train)).tolist()
            edges = [sample.graph.num_edges for sample in self.train]
            self._known_order = epoch, pack(shuffled, edges, settings.batch_size, settings.max_edges)
        return self._known_order[1]

    def _step(self, chosen: list[Sample], started: float) -> None:
        settings, progress = self.config.training, self.progress
        rate = learning_rate(settings, progress.step, self.fraction(), self.plateau)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        divisors = self.loss.divisors(chosen).to(self.model.device)
        mine = self.team.share(chosen)
        batch = collate(mine, self.offsets).to(self.model.device) if mine else None
        sums, clock = self._all_gradients(batch, divisors, time.monotonic() - started)
        value = float(self.loss.total(sums, divisors))
        if not math.isfinite(value):
            raise NonFiniteLossError(self._blame(batch))
        if settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self.optimizer.step()
        self.average.update(self.parameters, progress.step)
        progress.step += 1
        progress.batch += 1
        progress.seconds = clock
        progress.sums = [a + b for a, b in zip(progress.sums, sums.tolist(), strict=True)]
        progress.weights = [a + b for a, b in zip(progress.weights, divisors.tolist(), strict=True)]
        self.watch(Event(progress, value, rate, self.fraction()))

    def _all_gradients(self, batch: Batch | None, divisors: torch.Tensor, seconds: float) -> tuple[torch.Tensor, float]:
        """Gradients of the whole batch into the parameters; its weighted sums (3,), and the leader's clock.

        With several processes everything goes through one all-reduce: sums, clock, wish to stop, gradients.
        """
        result = self.gradients(batch, divisors) if batch is not None else None
        if self.team.size == 1 and result is not None:
            for parameter, gradient in zip(self.parameters, result.gradients, strict=True):
                parameter.grad = gradient
            return result.sums, seconds
        sizes = [p.numel() for p in self.parameters]
        flat = torch.zeros(5 + sum(sizes), dtype=torch.float64, device=self.model.device)
        if result is not None:
            flat[:3] = result.sums
            flat[5:] = torch.cat([g.reshape(-1).to(torch.float64) for g in result.gradients])
        flat[3:5] = torch.tensor([seconds if self.team.leads else 0.0, float(self._stop)])
        flat = self.team.add(flat)
        self._stop = bool(flat[4] > 0)
        for parameter, gradient in zip(self.parameters, flat[5:].split(sizes), strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype)
        return flat[:3], float(flat[3])

    def _blame(self, batch: Batch | None) -> str:
        """Which frames of a batch are not finite."""
        if batch is None:
            return f"The loss is not a number at step {self.progress.step}, on another process."
        found = batch_residuals(self.model, batch, create_graph=False)
        wrong = ~found.energy.isfinite()
        wrong[batch.graph.frames[~found.forces.isfinite().all(dim=1)]] = True
        names = [source for source, bad in zip(batch.sources, wrong.tolist(), strict=True) if bad]
        named = ", ".join(names or batch.sources)
        return (
            f"The loss is not a number at step {self.progress.step}, at {named}.\n"
            "Look at this frame (asenequip-train check), lower training.learning_rate, or set training.clip."
        )

    def _finish_epoch(self) -> None:
        """Validate with the averaged weights, note the row, keep the best."""
        settings, progress = self.config.training, self.progress
        progress.epoch += 1
        sums, weights = (torch.tensor(v, dtype=torch.float64) for v in (progress.sums, progress.weights))
        row: dict[str, float] = {"epoch": progress.epoch, "step": progress.step}
        row["learning_rate"] = learning_rate(settings, progress.step, self.fraction(), self.plateau)
        row["train_loss"] = float(self.loss.total(sums, weights))
        progress.batch, progress.sums, progress.weights = 0, [0.0] * 3, [0.0] * 3
        ends = progress.epoch >= settings.epochs or self._out_of_time()
        if progress.epoch % settings.valid_every == 0 or ends:
            if self.valid:
                row.update({f"valid_{k}": v for k, v in self.validate(self.valid).items()})
            judged = row.get("valid_loss", row["train_loss"])
            self.plateau.observe(judged, settings)
            progress.rows.append(row)
            if judged < progress.best:
                progress.best, progress.best_epoch = judged, progress.epoch
                self._save_best()
            self.watch(Event(progress, row["train_loss"], row["learning_rate"], self.fraction(), row))
        if self._due():
            self.save()

    def validate(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Errors of the averaged weights; see `metrics.validate`."""
        self._swap()
        try:
            size, names = self.config.training.batch_size, self.model.spec.type_names
            return validate(self.model, samples, self.loss, names, self.offsets, size, self.team)
        finally:
            self._swap()

    def _swap(self) -> None:
        if self.config.training.ema > 0:
            self.average.swap(self.parameters)

    def _due(self) -> bool:
        return time.monotonic() - self._saved >= self.config.training.checkpoint_seconds

    def save(self) -> None:
        """Write a checkpoint of the whole state (the leader does)."""
        self._saved = time.monotonic()
        if not self.team.leads:
            return
        packed = pack_optimizer(self.optimizer)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in enumerate(self.average.weights)}
        tensors |= {f"optimizer.{k}": v for k, v in packed.tensors.items()}
        values = {"progress": vars(self.progress), "plateau": vars(self.plateau), "optimizer": packed.values}
        save_checkpoint(self.folder, "last", self.progress.step, Checkpoint(tensors, values))

    def _save_best(self) -> None:
        if not self.team.leads:
            return
        self._swap()
        try:
            tensors = dict(self.model.state_dict())
            values: dict[str, Any] = {"epoch": self.progress.epoch, "loss": self.progress.best}
            save_checkpoint(self.folder, "best", self.progress.step, Checkpoint(tensors, values), keep=1)
        finally:
            self._swap()

    def restore(self) -> list[Path]:
        """Continue from the newest undamaged checkpoint, if there is one.

        Returns
        -------
        list of Path
            Damaged checkpoints that were passed over.
        """
        checkpoint, damaged = load_checkpoint(self.folder, "last")
        if checkpoint is None:
            return damaged
        groups: dict[str, dict[str, torch.Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in checkpoint.tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        self.model.load_state_dict(groups["model"])
        device = self.model.device
        self.average.weights = [groups["average"][str(k)].to(device) for k in range(len(self.parameters))]
        unpack_optimizer(self.optimizer, Checkpoint(groups["optimizer"], checkpoint.values["optimizer"]))
        self.plateau = Plateau(**checkpoint.values["plateau"])
        self.progress = Progress(**checkpoint.values["progress"])
        return damaged

    def load_best(self) -> int:
        """Put the weights of the best epoch into the model.

        Returns
        -------
        int
            The epoch; 0 if there is no such checkpoint and the model is left as it is.
        """
        checkpoint, _ = load_checkpoint(self.folder, "best")
        if checkpoint is None:
            return 0
        self.model.load_state_dict(checkpoint.tensors)
        return int(checkpoint.values["epoch"])

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the run after the present step (main thread only)."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop = True

        handlers = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                handlers[number] = signal.signal(number, stop)
        except ValueError:  # not the main thread: the caller's own handling stays
            pass
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
