"""The compiled training step against the eager one, at sizes it was not traced with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from train_frames import label_with_emt

from asenequip.train.config import ConfigError, parse_config
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


def test_bfloat16_rounds_the_products_and_not_the_weights(settings: Callable[..., dict[str, Any]]) -> None:
    frames = label_with_emt(4, seed=6)
    config = parse_config(settings(data={"split": {"valid": 0, "test": 0}}))
    prepared = prepare(config, load_data(config.data, frames))
    samples, loss = prepared.samples["train"], LossFunction(config.loss, prepared.species)
    exact, rounded = (
        eager_step(prepared.model, loss, precision)(collate(samples), loss.divisors(samples), loss.coefficients(1.0))
        for precision in ("float32", "bfloat16")
    )
    wanted, found = (torch.cat([g.flatten() for g in result.gradients]) for result in (exact, rounded))
    assert found.dtype is torch.float32
    error = float((found - wanted).norm() / wanted.norm())
    assert 1e-5 < error < 0.1  # eight bits of mantissa: 0.4 % each


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dtype": "tf32"}, "which CUDA has and cpu has not"),
        ({"dtype": "bfloat16", "training": {"compile": True}}, "goes with float32"),
    ],
)
def test_precisions_that_cannot_be_had_are_refused(
    settings: Callable[..., dict[str, Any]], change: dict[str, Any], told: str
) -> None:
    config = parse_config(settings(device="cpu", **change))
    with pytest.raises(ConfigError, match=told):
        prepare(config, load_data(config.data, label_with_emt(8, seed=6)))
