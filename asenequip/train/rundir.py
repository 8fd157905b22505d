"""The run directory: made new, locked while in use, and everything that is written into it."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from asenequip.files import locked, replace_file
from asenequip.train.config import Config, ConfigError, parse_config


class RunLockedError(RuntimeError):
    """Another process trains in this directory."""


class RunDirectory:
    """Paths and writers of one run.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """Folder of the figures and their CSV files."""
        return self.path / "figures"

    @property
    def potential(self) -> Path:
        """The finished potential."""
        return self.path / "model.asnq"

    @property
    def finished(self) -> bool:
        """Whether everything is there: the summary is written after the potential."""
        return self.potential.exists() and (self.path / "summary.json").exists()

    def write_text(self, name: str, text: str) -> Path:
        """Write a small file atomically."""
        path = self.path / name
        replace_file(path, text.encode())
        return path

    def write_json(self, name: str, values: object) -> Path:
        """Write a JSON file atomically."""
        return self.write_text(name, json.dumps(values, indent=1) + "\n")

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run.

        Raises
        ------
        ConfigError
            If it is not there or not JSON: the directory is not a run.
        """
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            raise ConfigError(f"{self.path} is not a training run: there is no {name} in it.") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path} is not an intact training run: {name}: {error}") from None

    def write_config(self, config: Config, given_frames: bool) -> None:
        """Write the resolved settings, and whether the frames were given in memory."""
        values = {"sha256": config.digest, "given_frames": given_frames, "settings": config.model_dump()}
        self.write_json("config.json", values)

    def config(self) -> Config:
        """The resolved settings of the run."""
        return parse_config(self.read_json("config.json")["settings"])

    def log(self, event: str, **values: object) -> None:
        """Append one line to ``log.jsonl``."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        line = json.dumps({"time": stamp, "event": event, **values})
        with open(self.path / "log.jsonl", "a") as stream:
            stream.write(line + "\n")

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write ``metrics.csv`` whole: one row per validated epoch."""
        self.write_text("metrics.csv", table(rows))

    def lock(self) -> AbstractContextManager[None]:
        """Hold the directory; the system lets go of it when the process ends, however it ends.

        Raises
        ------
        RunLockedError
        """
        refusal = RunLockedError(
            f"Another process is training in {self.path}.\nWait for it, or give this run another output."
        )
        return locked(self.path / ".lock", refusal)


def table(rows: Sequence[Mapping[str, float]]) -> str:
    """Rows as CSV text, columns in order of first appearance, every float exact."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: repr(value) for key, value in row.items()} for row in rows])
    return stream.getvalue()


def create_run(output: str | Path) -> RunDirectory:
    """Make a new run directory: ``output``, or with the next free number where that exists.

    Raises
    ------
    ConfigError
        If it cannot be made.
    """
    base = Path(output)
    for number in range(1, 10000):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(
                f"The run directory {path} cannot be made: {error.strerror}.\nSet another output."
            ) from None
        return RunDirectory(path)
    raise ConfigError(f"{base} and {base}-2 ... -9999 all exist.\nSet another output.")


def environment() -> dict[str, Any]:
    """Versions and hardware of this process, for the record."""
    import ase
    import numpy as np
    import torch

    import asenequip

    return {
        "asenequip": asenequip.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "ase": ase.__version__,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
