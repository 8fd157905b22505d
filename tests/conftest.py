"""Fixtures that every test may use."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from small_systems import small_model

from asenequip.artifact import save_artifact
from asenequip.model.spec import PairSpec

# no terminal, of the same width, whatever the tests are run from
for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE"):
    os.environ.pop(name, None)
os.environ["COLUMNS"] = "120"

with suppress(ImportError):  # of those tests that a GPU runs alone, none needs it
    from hypothesis import HealthCheck, settings

    # the same examples in every run, however busy the machine
    settings.register_profile(
        "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``model.asnq`` of an untrained network with a short-range repulsion."""
    model = small_model(pair=PairSpec("zbl"))
    return save_artifact(tmp_path_factory.mktemp("potential") / "small.asnq", model)
