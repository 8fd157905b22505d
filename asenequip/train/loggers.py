"""Metrics to TensorBoard and to Weights & Biases, where the settings ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from asenequip.train.config import Config
from asenequip.train.rundir import RunDirectory
from asenequip.train.state import Event

Watcher = Callable[[Event], None]


@contextmanager
def loggers(names: Sequence[str], config: Config, run: RunDirectory, first_step: int = 0) -> Iterator[Watcher]:
    """A watcher that sends each row of metrics to the named loggers.

    Parameters
    ----------
    names : sequence of str
        "tensorboard", "wandb".
    config : Config
    run : RunDirectory
        TensorBoard's files lie in its folder ``tensorboard``.
    first_step : int
        Steps taken before; what TensorBoard has of later ones is dropped.
    """
    with ExitStack() as stack:
        kinds = {"tensorboard": _tensorboard, "wandb": _wandb}
        sinks = [stack.enter_context(kinds[name](config, run, first_step)) for name in names]

        def watch(event: Event) -> None:
            if event.row is not None:
                for sink in sinks:
                    sink(event.row, event.progress.step)

        yield watch


Sink = Callable[[dict[str, float], int], Any]


@contextmanager
def _tensorboard(config: Config, run: RunDirectory, first_step: int) -> Iterator[Sink]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=first_step + 1 if first_step else None)

    def send(row: dict[str, float], step: int) -> None:
        for name, value in row.items():
            group = next((g for g in ("train", "valid") if name.startswith(f"{g}_")), "run")
            writer.add_scalar(f"{group}/{name.removeprefix(f'{group}_')}", value, step)
        writer.flush()

    try:
        yield send
    finally:
        writer.close()


@contextmanager
def _wandb(config: Config, run: RunDirectory, first_step: int) -> Iterator[Sink]:
    import wandb

    name = run.path.name
    session = wandb.init(
        project="asenequip", name=name, id=f"{name}-{config.digest[:8]}", resume="allow", dir=str(run.path),
        config=config.model_dump(),
    )  # fmt: skip

    def send(row: dict[str, float], step: int) -> None:
        session.log(row, step=step)

    try:
        yield send
    finally:
        session.finish()
