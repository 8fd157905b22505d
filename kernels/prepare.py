"""Compile the kernels of a computation side by side, before it runs.

A kernel is compiled when it is first called, one after the other; a training step calls a few dozen. Which ones is
found by running the step on fake tensors, which have shapes and no data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from asenequip.kernels import cuda, native
from asenequip.kernels.layout import layout

Kernel = tuple[str, torch.dtype, torch.device]
"""Text of the polynomial, the type that its sums are taken in, device."""


class _Recorder(TorchDispatchMode):
    """Notes the kernels that are called, in backward passes too (torch carries modes into their threads)."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: dict[Kernel, None] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.asenequip.polynomial.default:
            operands, _, text = args
            like: Tensor = operands[layout(text).like]
            self.kernels[text, like.dtype, like.device] = None
        return func(*args, **(kwargs or {}))


def kernels_of(step: Callable[[], object]) -> list[Kernel]:
    """The kernels that ``step`` calls, in the order of their first calls.

    Parameters
    ----------
    step : callable
        Run once, on fake tensors: it may differentiate and create tensors, but not read a tensor's values, nor change
        anything that outlives it.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), _Recorder() as seen:
        step()
    return list(seen.kernels)


def prepare(step: Callable[[], object], workers: int | None = None) -> int:
    """Compile every kernel that ``step`` will call; those in the cache are only loaded.

    Parameters
    ----------
    step : callable
        See `kernels_of`.
    workers : int, optional
        Compilers at work at the same time; one per core by default.

    Returns
    -------
    int
        Number of kernels.
    """
    kernels = kernels_of(step)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        list(pool.map(_load, kernels))
    return len(kernels)


def _load(kernel: Kernel) -> None:
    text, dtype, device = kernel
    if device.type == "cuda":
        cuda.load(text, dtype, torch.cuda.current_device() if device.index is None else device.index)
    elif device.type == "cpu":
        native.load(text, dtype)
