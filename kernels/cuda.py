"""Kernels for NVIDIA GPUs: generated CUDA, compiled by CuPy at first use and kept in its disk cache."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asenequip.kernels.generate import DOUBLE, MOST_WARPS, SINGLE, cuda_source
from asenequip.kernels.polynomial import EdgeForm, parse

Launch = Callable[[list[Tensor], list[Tensor], Tensor | None, int, int, int], None]
"""launch(operands, outputs, ptr, atoms, atoms per chunk, channels)"""

_CHAIN_THREADS = 128
_MOST_BLOCKS = 2**31 - 1


def wheel_problem(installed: list[str], cuda: str | None) -> str | None:
    """What is wrong with the installed CuPy, with the command that mends it; None if it fits.

    Parameters
    ----------
    installed : list of str
        Names of the CuPy distributions found, such as ``cupy-cuda12x``.
    cuda : str or None
        ``torch.version.cuda``, such as "12.8".
    """
    if cuda is None:
        return "This torch was built without CUDA. Install a CUDA build of torch to run on a GPU."
    wanted = f"cupy-cuda{cuda.split('.')[0]}x"
    # A source build ("cupy") may fit any toolkit; only wheels name theirs.
    if not installed:
        return f"CuPy is not installed; kernels for CUDA {cuda} need it. Run: pip install {wanted}"
    if len(installed) > 1:
        names = " ".join(sorted(installed))
        return f"Several CuPy packages are installed ({names}). Run: pip uninstall -y {names} && pip install {wanted}"
    if installed[0] not in (wanted, "cupy"):
        return (
            f"{installed[0]} does not fit torch, which was built for CUDA {cuda}. "
            f"Run: pip uninstall -y {installed[0]} && pip install {wanted}"
        )
    return None


def problem() -> str | None:
    """What keeps CUDA kernels from running in this environment, with the command that mends it; or None."""
    installed = []
    for name in ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-cuda14x"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        installed.append(name)
    return wheel_problem(installed, torch.version.cuda)


@functools.lru_cache(maxsize=1)
def available() -> bool:
    """Whether CUDA kernels can run; says once what is wrong if not."""
    found = problem()
    if found is not None:
        warnings.warn(
            f"The tensor track runs in plain torch operations on the GPU: same numbers, slower. {found}",
            RuntimeWarning,
            stacklevel=2,
        )
    return found is None


@functools.lru_cache(maxsize=4096)
def load(text: str, dtype: torch.dtype, index: int) -> Launch | None:
    """The launcher of the polynomial ``text`` on GPU number ``index``; None where CuPy is missing.

    Raises
    ------
    RuntimeError
        While a CUDA graph is captured: a module cannot be loaded then.
    """
    if not available():
        return None
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "A kernel must be compiled and loaded before it can be captured in a CUDA graph.\n"
            "Run the computation once, with the same parts requiring gradients, before the capture."
        )
    import cupy

    polynomial = parse(text)
    edges = isinstance(polynomial.form, EdgeForm)
    source = cuda_source(polynomial, SINGLE if dtype == torch.float32 else DOUBLE)
    # Torch makes the context of the device; CuPy then works in the same (primary) one.
    with torch.cuda.device(index), cupy.cuda.Device(index):
        torch.cuda.current_stream()
        kernel = cupy.RawModule(code=source, options=("-std=c++17",), backend="nvrtc").get_function("run")

    def launch(
        operands: list[Tensor], outputs: list[Tensor], ptr: Tensor | None, atoms: int, length: int, channels: int
    ) -> None:
        grid, block = edge_grid(atoms, channels) if edges else chain_grid(-(-atoms // length), channels)
        if 0 in grid:
            return
        arguments: list[Any] = [t.data_ptr() for t in (*operands, *outputs)]
        arguments.append(ptr.data_ptr() if ptr is not None else np.int64(length))
        # Asked for at every launch: a capture changes the stream.
        stream = cupy.cuda.ExternalStream(torch.cuda.current_stream(index).cuda_stream, index)
        with torch.cuda.device(index), cupy.cuda.Device(index), stream:
            kernel(grid, block, (*arguments, np.int64(atoms), np.int64(channels)))

    return launch


def edge_grid(atoms: int, channels: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Grid and block of an edge kernel: threads along the channels; several atoms where a warp holds them all."""
    threads = min(32 * MOST_WARPS, 32 * -(-channels // 32))
    together = 4 if threads == 32 else 1
    blocks = -(-atoms // together) if channels else 0
    return (min(blocks, _MOST_BLOCKS), 1, 1), (max(threads, 32), together, 1)


def chain_grid(chunks: int, channels: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Grid and block of a chain kernel: a thread per (chunk of atoms, channel)."""
    blocks = -(-(chunks * channels) // _CHAIN_THREADS)
    return (min(blocks, _MOST_BLOCKS), 1, 1), (_CHAIN_THREADS, 1, 1)
