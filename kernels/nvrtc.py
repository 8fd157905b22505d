"""Compile generated CUDA without a GPU, through NVIDIA's runtime compiler, and list what each kernel uses.

``python -m asenequip.kernels.nvrtc --arch sm_90`` prints registers, spilled bytes and shared memory of every kernel of
a model. Needs libnvrtc: ``pip install nvidia-cuda-nvrtc``, a CUDA toolkit, or a CUDA build of torch.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import functools
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from asenequip.kernels import polynomial as forms
from asenequip.kernels.generate import DOUBLE, SINGLE, Scalar, cuda_source
from asenequip.kernels.paths import component_irrep, harmonics_irreps, layer_paths
from asenequip.kernels.polynomial import ChainForm, EdgeForm, Polynomial


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture.

    Attributes
    ----------
    binary : bytes
        A cubin.
    registers, spilled, shared : int or None
        Registers per thread; bytes spilled (stores) per thread; static shared memory in bytes. None where the log is
        silent.
    """

    binary: bytes
    registers: int | None
    spilled: int | None
    shared: int | None


@functools.lru_cache(maxsize=1)
def find() -> ctypes.CDLL | None:
    """libnvrtc, from a wheel in this environment or from the system; None if there is none."""
    names = [str(p) for entry in sys.path if entry for p in sorted(Path(entry).glob("nvidia/*/lib/libnvrtc.so.*"))]
    names = [n for n in names if "builtins" not in n and ".alt." not in n]
    system = ctypes.util.find_library("nvrtc")
    for name in [*names, *([system] if system else [])]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def architectures(library: ctypes.CDLL) -> list[int]:
    """The compute capabilities that this NVRTC compiles for, such as 90."""
    count = ctypes.c_int()
    _check(library, library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    found = (ctypes.c_int * count.value)()
    _check(library, library.nvrtcGetSupportedArchs(found))
    return list(found)


def version(library: ctypes.CDLL) -> tuple[int, int]:
    """Major and minor version of this NVRTC."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library, library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def compile_cuda(library: ctypes.CDLL, source: str, arch: str) -> Compiled:
    """Compile ``source`` for ``arch`` (such as "sm_90").

    Raises
    ------
    RuntimeError
        With the compiler's log, if it does not compile.
    """
    program = ctypes.c_void_p()
    _check(library, library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None))
    try:
        options = [f"--gpu-architecture={arch}".encode(), b"-std=c++17", b"--ptxas-options=-v"]
        status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = _read(library, program, "ProgramLog").decode(errors="replace")
        if status != 0:
            raise RuntimeError(f"NVRTC failed for {arch}:\n{log}")
        return Compiled(_read(library, program, "CUBIN"), *_usage(log))
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def model_kernels(l_max: int, num_layers: int, parity: bool, shared: bool) -> dict[str, Polynomial]:
    """Every kernel of a tensor track up to its double backward, by name."""
    irrep = tuple(component_irrep(harmonics_irreps(l_max)).tolist())
    own = EdgeForm(irrep, l_max + 1)
    form = EdgeForm((0,) * len(irrep), 1) if shared else own
    first = {
        "env_sum": forms.env_sum(form),
        "edge_proj": forms.edge_proj(form),
        "edge_dir": forms.edge_dir(form),
        "edge_dot": forms.edge_dot(own),
    }
    for k, layer in enumerate(layer_paths(l_max, num_layers, parity)):
        first[f"chain {k}"] = forms.chain(ChainForm(layer))
    suffixes = ("", " backward", " double backward")
    return {name + s: p for name, top in first.items() for s, p in zip(suffixes, forms.orders(top, 2), strict=True)}


def main(arguments: list[str] | None = None) -> int:
    """Print a table of the kernels' registers, spills and shared memory."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--l-max", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--parity", action="store_true")
    parser.add_argument("--double", action="store_true", help="float64 instead of float32")
    chosen = parser.parse_args(arguments)
    library = find()
    if library is None:
        sys.stderr.write("libnvrtc was not found. Install it with: pip install nvidia-cuda-nvrtc\n")
        return 1
    scalar: Scalar = DOUBLE if chosen.double else SINGLE
    sys.stdout.write(
        f"{'kernel':<34}{'registers':>10}{'spilled B':>10}{'shared B':>10}   {chosen.arch}, {scalar.name}\n"
    )
    for l_max in chosen.l_max:
        for name, polynomial in model_kernels(l_max, chosen.layers, chosen.parity, False).items():
            used = compile_cuda(library, cuda_source(polynomial, scalar), chosen.arch)
            label = f"l_max {l_max} {name}"
            sys.stdout.write(f"{label:<34}{used.registers!s:>10}{used.spilled!s:>10}{used.shared!s:>10}\n")
    return 0


def _check(library: ctypes.CDLL, status: int) -> None:
    if status != 0:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC: {library.nvrtcGetErrorString(status).decode()}")


def _read(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _usage(log: str) -> tuple[int | None, int | None, int | None]:
    def number(pattern: str) -> int | None:
        match = re.search(pattern, log)
        return int(match.group(1)) if match else None

    registers = number(r"Used (\d+) registers")
    shared = number(r"(\d+) bytes smem")
    return registers, number(r"(\d+) bytes spill stores"), 0 if shared is None and registers is not None else shared


if __name__ == "__main__":
    raise SystemExit(main())
