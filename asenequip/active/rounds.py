"""The folder of a campaign: what each round leaves there. A step is done when its last file is there."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ase import Atoms

from asenequip.files import locked, replace_file

STEPS = ("explore", "select", "label", "judge", "train")


class CampaignLockedError(RuntimeError):
    """Another process runs this campaign."""


class CampaignError(RuntimeError):
    """A campaign cannot go on; the text says why and what helps."""


class Round:
    """Files of one round.

    Parameters
    ----------
    folder : Path
    number : int
        0 is the start: given frames, no exploration.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.folder = folder / f"round_{number:03d}"

    @property
    def candidates(self) -> Path:
        """What exploration found."""
        return self.folder / "candidates.extxyz"

    @property
    def selected(self) -> Path:
        """What is to be labelled; ``info["role"]`` is "train" or "fresh"."""
        return self.folder / "selected.extxyz"

    @property
    def labelled(self) -> Path:
        """Names of what was labelled and of what failed, by role (JSON)."""
        return self.folder / "labelled.json"

    @property
    def judged(self) -> Path:
        """Errors of the earlier potential on the fresh frames (JSON)."""
        return self.folder / "judged.json"

    @property
    def trained(self) -> Path:
        """Where the potential is (JSON)."""
        return self.folder / "trained.json"

    def done(self, step: str) -> bool:
        """Whether a step has left its last file."""
        files = (self.candidates, self.selected, self.labelled, self.judged, self.trained)
        return dict(zip(STEPS, files, strict=True))[step].exists()

    @property
    def model(self) -> Path:
        """The potential that this round has trained."""
        return self.folder.parent / read_json(self.trained)["model"]


def held(folder: Path) -> AbstractContextManager[None]:
    """Hold a campaign's folder; the system lets go of it when the process ends, however it ends.

    Raises
    ------
    CampaignLockedError
    """
    folder.mkdir(parents=True, exist_ok=True)
    refusal = CampaignLockedError(
        f"Another process runs the campaign in '{folder}'.\nWait for it, or give this one another output."
    )
    return locked(folder / ".lock", refusal)


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file atomically; a number that is not finite becomes null."""
    replace_file(path, (json.dumps(_finite(values), indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(k): _finite(v) for k, v in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(v) for v in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write structures as extended XYZ, atomically, to the last bit that `read_frames` gives back."""
    from ase.io import write

    stream = io.StringIO()
    if len(frames):
        write(stream, list(frames), format="extxyz")
    replace_file(path, stream.getvalue().encode())


def read_frames(path: Path) -> list[Atoms]:
    """Read structures; an empty file holds none."""
    from ase.io import read

    if path.stat().st_size == 0:
        return []
    found = read(str(path), index=":", format="extxyz")
    return found if isinstance(found, list) else [found]
