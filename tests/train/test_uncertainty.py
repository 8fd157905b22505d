"""The setting ``uncertainty``: fitted at the end of training and kept in the potential."""

from __future__ import annotations

import pytest
from train_frames import label_with_emt, small_settings

from asenequip import AllegroCalculator
from asenequip.train import fit
from asenequip.train.config import ConfigError


def test_a_trained_potential_carries_its_uncertainty(tmp_path):
    frames = label_with_emt(10, seed=0)
    settings = small_settings(tmp_path, uncertainty={"directions": 1, "max_frames": 3})
    potential = fit(frames, settings)
    calculator = AllegroCalculator(potential.path, device="cpu")
    assert calculator.rigidity.record["train_frames"] == 3
    assert calculator.rigidity.record["held_out_frames"] == 3
    assert calculator.uncertainty(frames[0]).max_force > 0


def test_without_validation_frames_it_is_refused_before_training(tmp_path):
    settings = small_settings(tmp_path, uncertainty={}, data={"split": {"valid": 0, "test": 0}})
    with pytest.raises(ConfigError, match="needs validation frames"):
        fit(label_with_emt(4, seed=0), settings)
