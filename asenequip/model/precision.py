"""Parts of the model that stay float64 whatever the network's precision: geometry, radial functions, energy scales."""

from __future__ import annotations

from typing import ClassVar

from torch import nn


class KeepsFloat64(nn.Module):
    """A module whose tensors named in ``float64`` move between devices but are never rounded to another precision."""

    float64: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        before = {name: getattr(self, name).detach().clone() for name in self.float64}
        super()._apply(fn, recurse)
        for name, value in before.items():
            tensor = getattr(self, name)
            tensor.data = value.to(device=tensor.device)
        return self
