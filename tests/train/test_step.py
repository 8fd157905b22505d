"""The compiled training step against the eager one, at sizes it was not traced with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from train_frames import label_with_emt

from asenequip.train.config import parse_config
from asenequip.train.data import collate
from asenequip.train.loss import LossFunction
from asenequip.train.prepare import prepare
from asenequip.train.sources import load_data
from asenequip.train.step import compiled_step, eager_step

ROUNDING = 1e-9
"""Relative: float64 sums in another order."""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the compiler's own making
def test_compiled_gradients_are_the_eager_ones(settings: Callable[..., dict[str, Any]]) -> None:
    frames = label_with_emt(9, seed=5)
    config = parse_config(settings(dtype="float64", data={"split": {"valid": 0, "test": 0}}))
    prepared = prepare(config, load_data(config.data, frames))
    samples, loss = prepared.samples["train"], LossFunction(config.loss, prepared.species)
    batches = [(collate(part), loss.divisors(part)) for part in (samples[:2], samples[2:5])]
    compiled, eager = compiled_step(prepared.model, loss, batches), eager_step(prepared.model, loss)
    with torch.no_grad():  # as an optimiser does
        for parameter in prepared.model.parameters():
            parameter.mul_(1.05)
    for chosen in (samples[5:9], samples[5:6]):
        wanted, found = (
            step(collate(chosen), loss.divisors(chosen), loss.coefficients(1.0)) for step in (eager, compiled)
        )
        torch.testing.assert_close(found.loss, wanted.loss, rtol=ROUNDING, atol=0)
        for a, b in zip(wanted.gradients, found.gradients, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-7, atol=ROUNDING * float(a.abs().max()))
