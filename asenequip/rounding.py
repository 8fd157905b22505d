"""The precisions that an evaluation can be asked for, and how the eager network keeps to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = {"float64": "float64", "float32": "float32", "tf32": "float32", "bfloat16": "float32"}
"""By name, the type of the weights; "tf32" and "bfloat16" are opt-in and round the operands of matrix products."""


@contextmanager
def products_in(precision: str, device: torch.device) -> Iterator[None]:
    """Within it, torch's matrix products on a device round their operands as the precision says.

    Parameters
    ----------
    precision : {"float64", "float32", "tf32", "bfloat16"}
    device : torch.device
    """
    if precision == "bfloat16":
        # a cache of rounded weights would be freed at the end, and a captured step would still read it
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
        return
    if device.type != "cuda":
        yield
        return
    # Torch has an old switch and a new one, and raises where the old one is read and says otherwise than the new. Only
    # the new one is read here; setting the old one sets both.
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32 = before == "tf32"
        matmul.fp32_precision = before
