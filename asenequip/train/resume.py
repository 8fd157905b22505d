"""Going on with a run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from asenequip.artifact import Potential
from asenequip.train.config import Config, ConfigError, changed_settings
from asenequip.train.data import SPLITS
from asenequip.train.distributed import join_team
from asenequip.train.finetune import adopt_model, load_start
from asenequip.train.pace import keep_pace
from asenequip.train.prepare import pick_device, prepare, read_data
from asenequip.train.run import Say, train_run
from asenequip.train.rundir import RunDirectory
from asenequip.train.table import sources_of

SAFE = (
    "training.epochs",
    "training.minutes",
    "training.early_stopping",
    "training.checkpoint_seconds",
    "training.valid_every",
    "training.workers",
    "loggers",
    "threads",
    "device",
    "output",
    "licence",
)
"""Settings that may differ when a run goes on; any other makes it another run."""


def resume_run(path: Path, config: Config, quiet: bool = False, say: Say = print) -> Potential:
    """Continue a run from its last undamaged checkpoint; with the other processes, if there are any.

    Parameters
    ----------
    path : Path
        Run directory.
    config : Config
        Settings wanted now; what differs from the run's own is printed.

    Raises
    ------
    ConfigError
        If a setting differs that changes what the run is, the data have changed, or the run is finished.
    RunLockedError
        If another process trains there.
    """
    run, team = RunDirectory(path), join_team(pick_device(config.device))
    old, record = run.config(), run.read_json("config.json")
    say = say if team.leads else lambda text: None
    if record["given_frames"]:
        raise ConfigError(f"{path} was trained on frames given in memory.\nCall asenequip.train.fit again.")
    if config.threads is None:
        config = config.model_copy(update={"threads": old.threads})
    config = keep_pace(config, old)
    if config.start is not None:
        config = adopt_model(config, load_start(config.start).spec)
    changed = changed_settings(old, config)
    for name, (before, after) in changed.items():
        say(f"{name}: {before} -> {after}")
    unsafe = [name for name in changed if name not in SAFE]
    if unsafe:
        raise ConfigError(
            f"A run cannot go on with another {', '.join(unsafe)}.\nTrain a new run, or put the old values back."
        )
    with run.lock() if team.leads else nullcontext():
        if run.finished:
            raise ConfigError(
                f"{path} is finished: {run.potential} is there.\nTrain on in a new run, with start: {run.potential}"
            )
        prepared = prepare(config, read_data(config))
        _same_data(run, {name: sources_of(prepared.samples[name]) for name in SPLITS})
        if changed and team.leads:
            run.write_config(config, given_frames=False)
            run.log("changed", settings={name: list(pair) for name, pair in changed.items()})
        return train_run(run, prepared, quiet=quiet, say=say, team=team)


def _same_data(run: RunDirectory, now: dict[str, list[str]]) -> None:
    if run.read_json("split.json") != now:
        raise ConfigError(
            f"The frames are not those that {run.path} began with (split.json).\nPut the data back, or train a new run."
        )
