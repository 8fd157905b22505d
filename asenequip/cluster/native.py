"""The compiled loops of the subpackage: C++ built at first use; without a compiler numpy gives the same numbers."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arguments", "library", "run"]

SOURCES = ("leaves.hpp", "search.hpp", "graph.hpp", "equations.hpp")


@functools.lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """Give the compiled loops, or None, said once, where they cannot be built."""
    from asenequip.kernels.native import compile_library

    here = Path(__file__).parent
    try:
        return compile_library("\n".join((here / name).read_text(encoding="utf-8") for name in SOURCES))
    except (OSError, subprocess.SubprocessError) as error:
        warnings.warn(
            "The loops of asenequip.cluster could not be compiled, so they run in numpy: same numbers, slower. "
            f"Install g++ or clang++, or name one in the environment variable CXX. {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


class Arguments:
    """Arguments of one call, laid out as the C++ structure of the same members in the same order.

    Parameters
    ----------
    *members : ndarray, int, float or None
        Arrays (C-contiguous, of the dtype the structure names) go in as pointers, None as a null pointer.
    """

    def __init__(self, *members: NDArray | int | float | None) -> None:
        kinds = [ctypes.c_double if isinstance(m, float) else ctypes.c_int64 for m in members]
        layout = type("Layout", (ctypes.Structure,), {"_fields_": [(f"m{i}", k) for i, k in enumerate(kinds)]})
        self.kept = members  # arrays must outlive the call
        self.layout = layout(*[_word(m) for m in members])


def _word(member: Any) -> Any:
    if member is None:
        return 0
    if isinstance(member, np.ndarray):
        if not member.flags.c_contiguous:
            raise ValueError("An array given to compiled code must be contiguous.\nPass numpy.ascontiguousarray of it.")
        return member.ctypes.data
    return member


def run(name: str, *arguments: Arguments | NDArray | int | float | None) -> int:
    """Call an exported function; structures and arrays go in as pointers.

    Raises
    ------
    RuntimeError
        If there is no compiled library; ask `library` first.
    """
    loaded = library()
    if loaded is None:
        raise RuntimeError("The loops of asenequip.cluster are not compiled.\nAsk native.library() before.")
    words: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Arguments):
            words.append(ctypes.byref(argument.layout))
        elif isinstance(argument, float):
            words.append(ctypes.c_double(argument))
        elif isinstance(argument, np.ndarray):
            words.append(ctypes.c_void_p(_word(argument)))
        else:
            words.append(ctypes.c_int64(argument or 0))
    function = getattr(loaded, name)
    function.restype = ctypes.c_int64
    return int(function(*words))
