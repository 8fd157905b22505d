"""The training loop: batches in a reproducible order, optimiser steps, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asenequip.interrupt import Interrupted, StopRequest, stop_on_signal
from asenequip.memory import is_out_of_memory
from asenequip.model.allegro import Allegro
from asenequip.train.batching import Loader, epoch_order, pack
from asenequip.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from asenequip.train.config import Config
from asenequip.train.data import Batch, Sample
from asenequip.train.distributed import Exchanged, Team, exchange
from asenequip.train.loss import LossFunction
from asenequip.train.metrics import validate
from asenequip.train.optimizers import Optimizer
from asenequip.train.pace import pace_of
from asenequip.train.padding import shapes_for
from asenequip.train.polish import Polisher
from asenequip.train.schedule import MovingAverage, Plateau, learning_rate
from asenequip.train.state import Event, Progress, pack_state, unpack_state
from asenequip.train.step import Step, compiled_step, eager_step, not_finite
from asenequip.train.table import sources_of, tabulate
from asenequip.train.zeros import Zeros

_SHRINK = 0.75
"""Part of its edges that a batch may have after one was too large for the memory."""


class NonFiniteLossError(ArithmeticError):
    """The loss of a frame is not a number; the text names the frame."""


class FrameTooLargeError(MemoryError):
    """A single frame does not fit into memory; the text names it."""


class Trainer:
    """Trains a model on samples; its whole state goes into checkpoints.

    Parameters
    ----------
    model : Allegro
        On its device, in its precision; trained in place.
    config : Config
    train, valid : sequences of Sample
    offsets : (d, T) float64
        Energy per atom of each data set and type taken off the labels at first, eV; see `zeros`.
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
        self.train, self.valid, self.team = train, valid, team
        self.watch = watch or (lambda event: None)
        settings = config.training
        self.loss = LossFunction(config.loss, model.spec.type_names)
        self.table = tabulate(train, model.spec.num_types)
        self.edges = self.table.num_edges().tolist()
        self.pace = pace_of(config, self.table)
        self.frame_weights = self.loss.frame_weights(self.table)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parameters = list(trained.values())
        self.optimizer = Optimizer(trained, settings)
        self.polisher = Polisher(self.parameters)
        self.average = MovingAverage.of(self.parameters, 0.0 if self.optimizer.averages else settings.ema)
        self.plateau = Plateau()
        self.progress = Progress(budget=settings.max_edges, offsets=offsets.tolist())
        self.zeros = Zeros(train, self.table, config.data.train, offsets, self.pace.batch_size)
        self.gradients: Step = eager_step(model, self.loss, config.dtype)
        cutoff = float(model.spec.cutoff_table()[0][0])
        shapes = shapes_for(self.table, self.pace.batch_size, settings.max_edges, cutoff) if settings.pad else None
        self.loader = Loader(train, offsets, team, settings.workers, shapes)
        self._known_order: tuple[int, list[int]] = (-1, [])
        self._stop = StopRequest()
        self._saved = self._started = time.monotonic()

    @property
    def offsets(self) -> np.ndarray:
        """Energy per atom of each data set and type that is now taken off the labels, (d, T) float64, eV."""
        return np.array(self.progress.offsets)

    def run(self) -> None:
        """Train to the end of the schedule, then polish.

        Raises
        ------
        Interrupted
            After SIGINT or SIGTERM, once the state is saved.
        NonFiniteLossError
            If the loss of a frame is not a number.
        FrameTooLargeError
            If memory does not suffice for a single frame.
        """
        with stop_on_signal() as self._stop:
            self._started = time.monotonic() - self.progress.seconds
            while not self._ended():
                self._run_epoch()
                self._finish_epoch()
            while self.progress.rounds < self.config.training.polish:
                self._polish()
            self.save()

    def compile(self) -> None:
        """Compile the training step, on the first and the largest batch.

        Raises
        ------
        RuntimeError
            If it cannot be compiled, or gives other gradients; the eager step then stays.
        """
        size, alone = self.pace.batch_size, Loader(self.train, self.offsets, shapes=self.loader.shapes)
        largest = np.argsort(self.edges, kind="stable")[-size:].tolist()
        batches = []
        for part in (list(range(min(size, len(self.train)))), largest[1:] or largest):
            if (batch := alone.one(part)) is not None:
                divisors = self.frame_weights[part].sum(dim=0)
                batches.append((batch.to(self.model.device), divisors.to(self.model.device)))
        self.gradients = compiled_step(self.model, self.loss, batches, fixed_sizes=self.loader.shapes is not None)

    def fraction(self) -> float:
        """Part of the training that is done, 0-1: by epochs, or by time where that is further on."""
        settings, progress = self.config.training, self.progress
        count = len(self._order(progress.epoch)) if progress.frames else 1
        done = (progress.epoch + progress.frames / count) / self.pace.epochs
        if settings.minutes is not None:
            done = max(done, progress.seconds / (60 * settings.minutes))
        return min(1.0, done)

    def _ended(self) -> bool:
        progress, patience = self.progress, self.config.training.early_stopping
        stale = patience is not None and progress.epoch - progress.best_epoch > patience
        return progress.epoch >= self.pace.epochs or self._out_of_time() or stale or progress.polishing

    def _out_of_time(self) -> bool:
        minutes = self.config.training.minutes
        return minutes is not None and self.progress.seconds >= 60 * minutes

    def _order(self, epoch: int) -> list[int]:
        """Positions of the frames of an epoch, in order."""
        if self._known_order[0] != epoch:
            order = epoch_order(self.config.seed, epoch, self.table.datasets, self.config.data.train)
            self._known_order = epoch, order.tolist()
        return self._known_order[1]

    def _run_epoch(self) -> None:
        """Steps up to the end of the epoch, or of the time."""
        progress = self.progress
        while progress.frames < len(self._order(progress.epoch)):
            for chosen, batch in self._batches(self._order(progress.epoch)[progress.frames :]):
                if not self._step(chosen, batch):
                    break  # memory did not suffice: what is left is packed anew
                if self._out_of_time():
                    return
                if self._stop or self._due():
                    self._save_or_stop()

    def _batches(self, order: list[int]) -> Iterator[tuple[list[int], Batch | None]]:
        """Frames in order as batches: the positions of all, and this process's share."""
        batches = pack(order, self.edges, self.pace.batch_size, self.progress.budget)
        for chosen, batch in zip(batches, self.loader.load(batches), strict=True):
            yield chosen, batch and self.zeros.put(batch, self.team.share(chosen), self.offsets)

    def _step(self, chosen: list[int], batch: Batch | None) -> bool:
        """One optimiser step; False if there was not memory enough for it."""
        settings, progress = self.config.training, self.progress
        rate = learning_rate(settings, progress.step, self.fraction(), self.plateau)
        divisors, coefficients = self.frame_weights[chosen].sum(dim=0), self.loss.coefficients(self.fraction())
        found = self._all_gradients(batch, divisors, coefficients)
        if found.out_of_memory:
            self._shrink(chosen)
            return False
        value = float(self.loss.total(found.sums.cpu(), divisors, coefficients))
        if not math.isfinite(value):
            raise NonFiniteLossError(self._blame(batch))
        if settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self.optimizer.step(rate)
        self.average.update(self.parameters, progress.step)
        progress.step += 1
        progress.frames += len(chosen)
        progress.seconds = found.seconds
        progress.sums = [a + b for a, b in zip(progress.sums, found.sums.tolist(), strict=True)]
        progress.weights = [a + b for a, b in zip(progress.weights, divisors.tolist(), strict=True)]
        if self.zeros.due(progress.step):
            progress.offsets = self.zeros.fit(self.model, self.offsets).tolist()
        self.watch(Event(progress, value, rate, self.fraction()))
        return True

    def _all_gradients(self, batch: Batch | None, divisors: torch.Tensor, coefficients: torch.Tensor) -> Exchanged:
        """Gradients of the whole batch into the parameters; its weighted sums, and the leader's clock."""
        result, lacking, device = None, False, self.model.device
        if batch is not None:
            try:
                result = self.gradients(batch.to(device), divisors.to(device), coefficients.to(device))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                lacking = True
        own = Exchanged(torch.zeros(3), time.monotonic() - self._started, bool(self._stop), lacking)
        found = exchange(self.team, self.parameters, result, own, device)
        self._stop.requested = found.stop
        return found

    def _shrink(self, chosen: list[int]) -> None:
        """Allow fewer edges to a batch, because this one was too large."""
        edges = sum(self.edges[k] for k in chosen)
        if len(chosen) == 1:
            raise FrameTooLargeError(
                f"Memory does not suffice for {sources_of(self.train)[chosen[0]]} alone, with {edges} edges.\n"
                "Make the model or the cutoff smaller, leave the frame out, or train where there is more memory."
            )
        self.progress.budget = int(_SHRINK * edges)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        text = f"Memory did not suffice for a batch of {edges} edges: from now on at most {self.progress.budget}."
        self.watch(Event(self.progress, math.nan, math.nan, self.fraction(), text=text))

    def _blame(self, batch: Batch | None) -> str:
        """Which frames of a batch are not finite."""
        if batch is None:
            return f"The loss is not a number at step {self.progress.step}, on another process."
        named = ", ".join(not_finite(self.model, batch.to(self.model.device)) or batch.sources)
        return (
            f"The loss is not a number at step {self.progress.step}, at {named}.\n"
            "Look at this frame (asenequip-train check), lower training.learning_rate, or set training.clip."
        )

    def _finish_epoch(self) -> None:
        """Validate with the averaged weights, note the row, keep the best."""
        settings, progress = self.config.training, self.progress
        progress.epoch += 1
        sums, weights = (torch.tensor(v, dtype=torch.float64) for v in (progress.sums, progress.weights))
        progress.frames, progress.sums, progress.weights = 0, [0.0] * 3, [0.0] * 3
        if progress.epoch % self.pace.valid_every == 0 or self._ended():
            rate = learning_rate(settings, progress.step, self.fraction(), self.plateau)
            self._judge(rate, float(self.loss.total(sums, weights)))
        if self._due():
            self.save()

    def _judge(self, rate: float, train_loss: float) -> None:
        """A row of metrics; the weights are kept if they are the best so far."""
        progress = self.progress
        row: dict[str, float] = {"epoch": progress.epoch, "step": progress.step}
        row |= {"learning_rate": rate, "train_loss": train_loss}
        if len(self.valid):
            row.update({f"valid_{k}": v for k, v in self.validate(self.valid).items()})
        judged = row.get("valid_loss", row["train_loss"])
        self.plateau.observe(judged, self.config.training)
        progress.rows.append(row)
        if judged < progress.best:
            progress.best, progress.best_epoch = judged, progress.epoch
            self._save_best()
        self.watch(Event(progress, row["train_loss"], row["learning_rate"], self.fraction(), row))

    def _polish(self) -> None:
        """One round of L-BFGS from the averaged weights, counted as an epoch of one step."""
        progress = self.progress
        if not progress.polishing:
            self._take_average()
            progress.polishing = True
            self.save()
        before = self.polisher.round(self._full_loss)
        self.average = MovingAverage.of(self.parameters, self.average.decay)
        progress.rounds += 1
        progress.epoch += 1
        progress.step += 1
        self._judge(0.0, before)
        self._save_or_stop()

    def _full_loss(self) -> float:
        """Loss on all training frames; its gradients are left in the parameters."""
        sums, total = torch.zeros(3, dtype=torch.float64), [torch.zeros_like(p) for p in self.parameters]
        divisors, done = self.frame_weights.sum(dim=0), 0
        coefficients = self.loss.coefficients(1.0)
        while done < len(self.train):
            for chosen, batch in self._batches(list(range(done, len(self.train)))):
                found = self._all_gradients(batch, divisors, coefficients)
                if found.stop:
                    raise Interrupted  # the state at the beginning of the round is saved
                if found.out_of_memory:
                    self._shrink(chosen)
                    break
                done += len(chosen)
                sums += found.sums.cpu()
                for one, parameter in zip(total, self.parameters, strict=True):
                    one.add_(parameter.grad)  # type: ignore[arg-type]
                self.progress.seconds = found.seconds
        for one, parameter in zip(total, self.parameters, strict=True):
            parameter.grad = one
        return float(self.loss.total(sums, divisors, coefficients))

    def validate(self, samples: Sequence[Sample], averaged: bool = True) -> dict[str, float]:
        """Errors of the averaged (or present) weights; see `metrics.validate`."""
        settings = self.config.training
        loader = Loader(samples, self.offsets, workers=settings.workers)
        with self.averaged(averaged):
            return validate(self.model, loader, self.loss, self.team, self.pace.batch_size, self.progress.budget)

    @contextmanager
    def averaged(self, wanted: bool = True) -> Iterator[None]:
        """The averaged weights in the place of the present ones, which are put back exactly."""
        if not wanted or self.progress.polishing:
            yield
        elif self.average.decay > 0:
            self.average.swap(self.parameters)
            try:
                yield
            finally:
                self.average.swap(self.parameters)
        else:
            with self.optimizer.averaged():
                yield

    @torch.no_grad()
    def _take_average(self) -> None:
        with self.averaged():
            kept = [parameter.detach().clone() for parameter in self.parameters]
        for parameter, value in zip(self.parameters, kept, strict=True):
            parameter.copy_(value)

    def _due(self) -> bool:
        return time.monotonic() - self._saved >= self.config.training.checkpoint_seconds

    def _save_or_stop(self) -> None:
        self.save()
        if self._stop:
            raise Interrupted

    def save(self) -> None:
        """Write a checkpoint of the whole state (the leader does)."""
        self._saved = time.monotonic()
        if self.team.leads:
            packed = pack_state(self.model, self.average, self._optimizers(), self.plateau, self.progress)
            save_checkpoint(self.folder, "last", self.progress.step, packed)

    def _optimizers(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "polisher": self.polisher}

    def _save_best(self) -> None:
        if not self.team.leads:
            return
        with self.averaged():
            tensors = dict(self.model.state_dict())
            progress = self.progress
            values = {"epoch": progress.epoch, "loss": progress.best, "offsets": progress.offsets}
            save_checkpoint(self.folder, "best", progress.step, Checkpoint(tensors, values), keep=1)

    def restore(self) -> list[Path]:
        """Continue from the newest undamaged checkpoint, if there is one.

        Returns
        -------
        list of Path
            Damaged checkpoints that were passed over.
        """
        checkpoint, damaged = load_checkpoint(self.folder, "last")
        if checkpoint is not None:
            self.plateau, self.progress = unpack_state(checkpoint, self.model, self.average, self._optimizers())
        return damaged

    def load_best(self) -> int:
        """Put the weights and offsets of the best epoch in place; without them, the averaged weights of the last.

        Returns
        -------
        int
            The epoch; 0 if it has no undamaged checkpoint.
        """
        checkpoint, _ = load_checkpoint(self.folder, "best")
        if checkpoint is None:
            self._take_average()
            return 0
        self.model.load_state_dict(checkpoint.tensors)
        self.progress.offsets = checkpoint.values["offsets"]
        return int(checkpoint.values["epoch"])
