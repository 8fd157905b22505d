"""Text of the kernels: one body per polynomial, completed to C++ for a CPU or to CUDA.

A body computes every output of a polynomial for one atom (edge form) or one chunk of atoms (chain form) and one tile of
channels; `prelude` says what its few macros mean on each machine. Sums that several outputs share are formed once, and
Clebsch-Gordan coefficients appear as literals in straight-line code.
"""

from __future__ import annotations

from dataclasses import dataclass

from asenequip.kernels import prelude
from asenequip.kernels.generate_chain import chain_body
from asenequip.kernels.generate_edge import edge_body
from asenequip.kernels.polynomial import HARMONICS, WEIGHTS, EdgeForm, Polynomial

MOST_WARPS = 8
"""Warps in a block of an edge kernel on a GPU; more channels than they hold are taken in turns."""
_SHARED_BYTES = 40_000


@dataclass(frozen=True)
class Scalar:
    """A floating-point type: its C name and its size in bytes."""

    name: str
    size: int


SINGLE = Scalar("float", 4)
DOUBLE = Scalar("double", 8)


def cpu_source(polynomial: Polynomial, scalar: Scalar) -> str:
    """C++ for the polynomial; its one exported function is ``run`` (see `native`)."""
    edges = isinstance(polynomial.form, EdgeForm)
    main = prelude.CPU_EDGE_MAIN if edges else prelude.CPU_CHAIN_MAIN
    arguments = ", ".join(
        [f"(const {_pointee(polynomial, kind)}*)in[{k}]" for k, kind in enumerate(polynomial.operands)]
        + [f"({_pointee(polynomial, o.kind)}*)out[{k}]" for k, o in enumerate(polynomial.outputs)]
        + (["ptr", "U"] if edges else ["nullptr", "U"])
    )
    return "\n".join(
        [
            f"typedef {scalar.name} T;",
            f"#define SINGLE {int(scalar == SINGLE)}",
            f"#define BFLOAT16 {int(_bfloat16(polynomial))}",
            f"#define WIDEST {_widest(polynomial)}",
            "#define MOST 1024",
            f"#define ARGS {{{arguments}}}",
            prelude.CPU_WIDTH + prelude.shuffles(scalar.size) + prelude.CPU,
            _arguments(polynomial),
            _body(polynomial, scalar),
            prelude.CPU_TILES + main,
        ]
    )


def cuda_source(polynomial: Polynomial, scalar: Scalar) -> str:
    """CUDA for the polynomial; its one kernel is ``run`` (see `cuda`)."""
    edges = isinstance(polynomial.form, EdgeForm)
    main = prelude.CUDA_EDGE_MAIN if edges else prelude.CUDA_CHAIN_MAIN
    names = _names(polynomial)
    parameters = ", ".join(
        [f"const {_pointee(polynomial, kind)}* __restrict__ in{k}" for k, kind in enumerate(polynomial.operands)]
        + [f"{_pointee(polynomial, o.kind)}* __restrict__ out{k}" for k, o in enumerate(polynomial.outputs)]
    )
    parts = [
        f"typedef {scalar.name} T;",
        f"#define BFLOAT16 {int(_bfloat16(polynomial))}",
        f"#define PARAMETERS {parameters}",
        f"#define ARGS {{{', '.join([*names, 'ptr' if edges else 'nullptr', 'U'])}}}",
        f"#define MOST {MOST_WARPS}",
        prelude.CUDA,
        _arguments(polynomial),
    ]
    slots = sum(o.kind == HARMONICS for o in polynomial.outputs) if edges else 0
    if slots and isinstance(polynomial.form, EdgeForm):
        length = len(polynomial.form.irrep)
        batch = 8
        while batch > 1 and slots * batch * MOST_WARPS * length * scalar.size > _SHARED_BYTES:
            batch //= 2
        parts.append(f"#define SLOTS {slots}\n#define BATCH {batch}\n#define LONGEST {length}")
        parts.append(prelude.CUDA_REDUCE)
    return "\n".join([*parts, _body(polynomial, scalar), main])


def _body(polynomial: Polynomial, scalar: Scalar) -> str:
    return edge_body(polynomial) if isinstance(polynomial.form, EdgeForm) else chain_body(polynomial, scalar.size)


def _names(polynomial: Polynomial) -> list[str]:
    return [f"in{k}" for k in range(len(polynomial.operands))] + [f"out{k}" for k in range(len(polynomial.outputs))]


def _bfloat16(polynomial: Polynomial) -> bool:
    return isinstance(polynomial.form, EdgeForm) and polynomial.form.bfloat16


def _pointee(polynomial: Polynomial, kind: int) -> str:
    return "S" if kind == WEIGHTS and isinstance(polynomial.form, EdgeForm) else "T"


def _arguments(polynomial: Polynomial) -> str:
    inputs = [
        f"  const {_pointee(polynomial, kind)}* __restrict__ in{k};" for k, kind in enumerate(polynomial.operands)
    ]
    outputs = [f"  {_pointee(polynomial, o.kind)}* __restrict__ out{k};" for k, o in enumerate(polynomial.outputs)]
    return "\n".join(["struct Args {", *inputs, *outputs, "  const I* ptr;", "  I U;", "};"])


def _widest(polynomial: Polynomial) -> int:
    """Registers of channels in a CPU tile: enough to read whole rows of edges; one where sums would spill."""
    return 4 if isinstance(polynomial.form, EdgeForm) else 1
