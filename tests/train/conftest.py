from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.io import write
from train_frames import label_with_emt, small_settings


@pytest.fixture
def frames() -> list[Atoms]:
    return label_with_emt(12, seed=1)


@pytest.fixture
def data_file(tmp_path: Path, frames: list[Atoms]) -> Path:
    path = tmp_path / "emt.extxyz"
    write(path, frames)
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`small_settings` in a folder of the test's own."""
    return partial(small_settings, tmp_path)
