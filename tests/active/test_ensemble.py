"""Members of an ensemble: each trains as it would alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from asenequip.active.ensemble import member_gradients, stack, train_ensemble
from asenequip.train.config import ConfigError, parse_config
from asenequip.train.data import collate
from asenequip.train.loss import LossFunction
from asenequip.train.prepare import prepare
from asenequip.train.sources import load_data
from asenequip.train.step import eager_step
from asenequip.uncertainty import Ensemble

sys.path.append(str(Path(__file__).parents[1] / "train"))
from train_frames import label_with_emt, small_settings


def test_one_pass_gives_each_member_its_own_gradients(tmp_path):
    frames = label_with_emt(8, seed=0)
    config = parse_config(small_settings(tmp_path, dtype="float64"))
    models = [prepare(config.model_copy(update={"seed": s}), load_data(config.data, frames)).model for s in range(3)]
    prepared = prepare(config, load_data(config.data, frames))
    samples = prepared.samples["train"]
    loss = LossFunction(config.loss, prepared.species)
    batch, divisors = collate(samples, prepared.statistics.offsets), loss.divisors(samples)
    coefficients = loss.coefficients(1.0)
    found = member_gradients(models[0], stack(models), loss, batch, divisors, coefficients)
    for k, model in enumerate(models):
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        alone = eager_step(model, loss)(batch, divisors, coefficients).gradients
        for name, gradient in zip(names, alone, strict=True):
            torch.testing.assert_close(found[name][k], gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("batched", [False, True])
def test_members_differ_and_make_an_ensemble(batched, tmp_path):
    frames = label_with_emt(8, seed=0)
    paths = train_ensemble(frames, small_settings(tmp_path), members=2, batched=batched)
    assert len(paths) == 2
    calculator = Ensemble(paths, device="cpu")
    assert calculator.uncertainty(frames[0]).forces.min() > 0


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"optimizer": "muon"}},
        {"dtype": "bfloat16"},
        {"data": {"train": [{"path": "other.extxyz", "own_shifts": True}]}},
    ],
)
def test_what_one_pass_cannot_do_is_refused(change, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot have(.|\n)*batched=False"):
        train_ensemble(None, small_settings(tmp_path, **change), members=2, batched=True)
