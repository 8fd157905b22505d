"""What is refused before training begins, and what is worth a remark: packages, precision, labels, species, parts."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from asenequip.fused.engine import has_bfloat16
from asenequip.train.config import Config, ConfigError, Loss
from asenequip.train.table import FrameTable

if TYPE_CHECKING:
    from asenequip.train.prepare import Prepared


def check_packages(config: Config) -> None:
    """Refuse settings that need a package that is not installed."""
    needed = [*config.loggers, *(["schedulefree"] if config.training.optimizer == "schedule_free" else [])]
    for name in needed:
        try:
            importlib.import_module(name)
        except ImportError:
            raise ConfigError(
                f"The settings need the package {name}, which is not installed.\n"
                f"Install it with: pip install 'asenequip[{name}]'"
            ) from None


def check_precision(config: Config, device: torch.device) -> None:
    """Refuse a precision that the device, or a compiled step, does not have."""
    if config.dtype == "tf32" and device.type != "cuda":
        raise ConfigError(
            f"The setting 'dtype' is tf32, which CUDA has and {device} has not. Take float32 or bfloat16."
        )
    if config.dtype == "bfloat16" and device.type == "cpu" and not has_bfloat16():
        raise ConfigError(
            "The setting 'dtype' is bfloat16, and this processor has no products in it (AVX512-BF16), so they would be "
            "slower than those in float32. Take float32."
        )
    if config.dtype in ("bfloat16", "tf32") and config.training.compile:
        raise ConfigError(f"The setting 'training.compile' goes with float32 and float64. Got dtype {config.dtype}.")


def check_labels(settings: Loss, table: FrameTable) -> None:
    """Refuse to train where the loss asks for labels that no training frame has.

    Stress is the exception: frames often lack it, and its term is then zero.

    Raises
    ------
    ConfigError
        Naming the setting, and what to do.
    """
    labelled = {"energy": np.isfinite(table.energies), "forces": table.labelled, "stress": table.has_stress}
    weight = {
        name: max([getattr(settings, name), *(getattr(stage, name) or 0.0 for stage in settings.stages)])
        for name in labelled
    }
    for name, words in (("energy", "an energy"), ("forces", "forces")):
        if weight[name] > 0 and not labelled[name].any():
            raise ConfigError(
                f"No training frame has {words}, which loss.{name} weighs by {weight[name]:g}.\n"
                f"Say where they are in data.train.keys, or set loss.{name}: 0."
            )
    if not any(weight[name] > 0 and labelled[name].any() for name in labelled):
        raise ConfigError("The loss weighs no label that the training frames have.\nSet loss.energy or loss.forces.")


def check_species(config: Config, species: Sequence[str]) -> None:
    """Refuse settings of single species that are none of the model's."""
    named = {"loss.species_weights": config.loss.species_weights, "model.energy_scales": config.model.energy_scales}
    for setting, values in named.items():
        unknown = [name for name in values if name not in species] if isinstance(values, dict) else []
        if unknown:
            raise ConfigError(
                f"{setting} names {', '.join(unknown)}, but the species are {', '.join(species)}.\n"
                "Correct the symbol, or leave it out."
            )


def remarks(prepared: Prepared) -> list[str]:
    """What a user should know of the division of the frames before they train."""
    counts = zip(prepared.species, prepared.statistics.atoms, strict=True)
    untrained = [name for name, count in counts if not count and name not in prepared.learnt]
    found = []
    if untrained:
        found.append(f"no training frame holds {', '.join(untrained)}: forces on it will be arbitrary")
    if not len(prepared.samples["valid"]):
        found.append("there are no validation frames: the best epoch is that of the lowest training loss")
    return found
