"""The optimisers that the settings name, together one object with one learning rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from asenequip.train.checkpoint import Checkpoint, pack_optimizer, unpack_optimizer
from asenequip.train.config import Training

_MUON_PARTS = ("two_body", "embed", "project", "latents")
"""Parts whose matrices go from features to features. Embeddings of species and the last layers to the energy are left
to AdamW, as Muon's authors advise."""


class Optimizer:
    """One or two optimisers over the parameters of a model.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        Those that are trained, by name.
    settings : Training
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: Training) -> None:
        self.parameters = list(parameters.values())
        values: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
        self.parts: list[torch.optim.Optimizer] = []
        self.averages = settings.optimizer == "schedule_free"
        if settings.optimizer == "muon":
            chosen = {name for name, p in parameters.items() if name.split(".")[0] in _MUON_PARTS and p.dim() == 2}
            matrices = [p for name, p in parameters.items() if name in chosen]
            rest = [p for name, p in parameters.items() if name not in chosen]
            if matrices:
                self.parts.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **values))
            if rest:
                self.parts.append(torch.optim.AdamW(rest, **values))
        elif settings.optimizer == "schedule_free":
            self.parts.append(_schedule_free(self.parameters, values))
        elif settings.optimizer == "adamw":
            self.parts.append(torch.optim.AdamW(self.parameters, **values))
        else:
            amsgrad = settings.optimizer == "amsgrad"
            self.parts.append(torch.optim.Adam(self.parameters, amsgrad=amsgrad, **values))

    def step(self, rate: float) -> None:
        """One step along the gradients with a learning rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The optimiser's own average of the weights in their place, where it keeps one; then exactly the weights."""
        if not self.averages:
            yield
            return
        kept = [parameter.detach().clone() for parameter in self.parameters]
        for part in self.parts:
            part.eval()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for part in self.parts:
                part.train()  # type: ignore[attr-defined]
            with torch.no_grad():
                for parameter, value in zip(self.parameters, kept, strict=True):
                    parameter.copy_(value)

    def pack(self) -> Checkpoint:
        """The whole state."""
        tensors: dict[str, Tensor] = {}
        values = []
        for k, part in enumerate(self.parts):
            packed = pack_optimizer(part)
            tensors |= {f"{k}.{name}": tensor for name, tensor in packed.tensors.items()}
            values.append(packed.values)
        return Checkpoint(tensors, {"parts": values})

    def unpack(self, packed: Checkpoint) -> None:
        """Put a packed state back."""
        for k, (part, values) in enumerate(zip(self.parts, packed.values["parts"], strict=True)):
            start = f"{k}."
            mine = {name[len(start) :]: t for name, t in packed.tensors.items() if name.startswith(start)}
            unpack_optimizer(part, Checkpoint(mine, values))


def _schedule_free(parameters: list[nn.Parameter], values: dict[str, Any]) -> torch.optim.Optimizer:
    from schedulefree import AdamWScheduleFree

    optimizer: torch.optim.Optimizer = AdamWScheduleFree(parameters, **values)
    optimizer.train()  # type: ignore[attr-defined]
    return optimizer
