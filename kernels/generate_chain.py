"""Bodies of the chain form.

The nonzeros are taken block by block, a block being one irrep of the environment and one of the vector. With
``x_jm = sum G_j v_m`` and ``h_pi = sum W_p b_i`` every nonzero costs one multiply-add per sum it enters:
``t_pi += C x_jm`` serves the gradients of b and W, ``S_jm += C h_pi`` those of G and v.

Sums live in registers. Where they are too many, the body goes over its atoms several times, each pass with some of the
outputs, or with the paths of some blocks (every path lies in one block).
"""

from __future__ import annotations

from collections.abc import Iterable

from asenequip.kernels.paths import component_irrep
from asenequip.kernels.polynomial import ENVIRONMENT, OUT, PATHS, VECTOR, ChainForm, Polynomial

Key = tuple[tuple[int, ...], ...]
"""A sum of products: the operands of each product, sorted."""
Block = dict[tuple[int, int], list[tuple[int, int, float]]]
"""(j, m) -> the (p, i, C) of its nonzeros."""

_REGISTER = 4
"""Bytes; a thread of a GPU has 255 registers."""
_MOST_SUMS = 75
"""Registers of sums that one pass may keep: what was found to leave no spills worth the name."""
_SHARING = ((PATHS, OUT), (ENVIRONMENT, VECTOR))
"""Kinds of outputs that share partial sums: t, and S."""
_MOST_VALUES = 200
"""Registers of sums and operands above which operands are loaded anew in each block."""


def chain_body(polynomial: Polynomial, size: int) -> str:
    """The body for one chunk of atoms and one tile of channels, for a scalar of ``size`` bytes."""
    if not isinstance(polynomial.form, ChainForm):
        raise TypeError(f"The chain generator takes the chain form of polynomials. Got {polynomial.form} instead.")
    whole = _Pass(polynomial, polynomial.form, size, range(len(polynomial.outputs)), _blocks(polynomial.form))
    lines = ["TILE(tile) {", "  const I U = args.U;"]
    for part in whole.split():
        lines += part.lines()
    return "\n".join([*lines, "}"])


def _blocks(form: ChainForm) -> list[Block]:
    layer, nonzeros = form.layer, form.layer.nonzeros
    env, out = component_irrep(layer.irreps_env), component_irrep(layer.irreps_out)
    blocks: dict[tuple[int, int], Block] = {}
    columns = (nonzeros.i, nonzeros.j, nonzeros.m, nonzeros.p, nonzeros.value)
    for i, j, m, p, value in zip(*(c.tolist() for c in columns), strict=True):
        block = blocks.setdefault((int(env[j]), int(out[m])), {})
        block.setdefault((j, m), []).append((p, i, value))
    return [blocks[k] for k in sorted(blocks)]


def _rows(block: Block) -> list[tuple[int, int]]:
    return sorted({(p, i) for entries in block.values() for p, i, _ in entries})


class _Pass:
    """One loop over the atoms: some outputs (by number), from some blocks."""

    def __init__(
        self, polynomial: Polynomial, form: ChainForm, size: int, numbers: Iterable[int], blocks: list[Block]
    ) -> None:
        self.polynomial, self.form, self.size = polynomial, form, size
        self.registers = size // _REGISTER
        self.sizes = form.sizes
        self.kinds = polynomial.operands
        self.blocks = blocks
        self.outputs = {o: polynomial.outputs[o] for o in numbers}
        self.paths = sorted({p for block in blocks for p, _ in _rows(block)})
        self.uses = {o: self._group(output.kind, output.terms) for o, output in self.outputs.items()}
        self.products: dict[str, list[Key]] = {"x": [], "h": []}
        for o, output in self.outputs.items():
            known = self.products["x" if output.kind in (PATHS, OUT) else "h"]
            known += [key for key in dict.fromkeys(self.uses[o].values()) if key not in known]

    @property
    def sums(self) -> int:
        """Registers of the sums that live at the same time."""
        kept = sum(len(self.paths) if o.kind == PATHS else self.sizes[o.kind] for o in self.outputs.values())
        partial = max(len(_rows(block)) for block in self.blocks) * sum(map(len, self.products.values()))
        return self.registers * (kept + partial)

    @property
    def crowded(self) -> bool:
        """Whether all operands and sums together are too many."""
        return self.sums + self.registers * sum(self.sizes[kind] for kind in self.kinds) > _MOST_VALUES

    def split(self) -> list[_Pass]:
        """The pass itself, or as many as keep the sums of each below the limit, where that can be."""
        halves = self._halves() if self.sums > _MOST_SUMS else []
        return [part for half in halves for part in half.split()] or [self]

    def _part(self, numbers: Iterable[int], blocks: list[Block]) -> _Pass:
        return _Pass(self.polynomial, self.form, self.size, numbers, blocks)

    def _halves(self) -> list[_Pass]:
        """First the outputs that share no partial sums, then each output, then the blocks of a sum over paths."""
        sharing = [[o for o, output in self.outputs.items() if output.kind in kinds] for kinds in _SHARING]
        groups = [group for group in sharing if group]
        if len(groups) == 1:
            groups = [[o] for o in groups[0]]
        if len(groups) > 1:
            return [self._part(group, self.blocks) for group in groups]
        middle = len(self.blocks) // 2
        if self._outputs(PATHS) and middle:
            return [self._part(groups[0], part) for part in (self.blocks[:middle], self.blocks[middle:])]
        return []

    def _group(self, kind: int, terms: Iterable[tuple[int, ...]]) -> dict[int, Key]:
        """Terms of an output of one kind, gathered by the operand outside the partial product."""
        outside = {PATHS: OUT, OUT: PATHS, ENVIRONMENT: VECTOR, VECTOR: ENVIRONMENT}[kind]
        groups: dict[int, list[tuple[int, ...]]] = {}
        for term in terms:
            (lead,) = (a for a in term if self.kinds[a] == outside)
            groups.setdefault(lead, []).append(tuple(a for a in term if a != lead))
        return {lead: tuple(sorted(products)) for lead, products in groups.items()}

    def _operands(self, kind: int) -> list[int]:
        return [a for a, k in enumerate(self.kinds) if k == kind]

    def _outputs(self, kind: int) -> list[int]:
        return [o for o, output in self.outputs.items() if output.kind == kind]

    def lines(self) -> list[str]:
        lines = ["  {"]
        for o in self._outputs(PATHS):
            lines.append("  V " + ", ".join(f"o{o}_{p} = ZERO" for p in self.paths) + ";")
        lines.append("  for (I a = n; a < stop; ++a) {")
        for kind in (ENVIRONMENT, VECTOR, OUT):
            for o in self._outputs(kind):
                lines.append("    V " + ", ".join(f"o{o}_{i} = ZERO" for i in range(self.sizes[kind])) + ";")
        for block in self.blocks:
            lines += ["    {", *("      " + line for line in self._block(block)), "    }"]
        for kind in (ENVIRONMENT, VECTOR, OUT):
            for o in self._outputs(kind):
                size = self.sizes[kind]
                lines += [f"    STORE(args.out{o} + (a * {size} + {i}) * U + u, o{o}_{i});" for i in range(size)]
        lines.append("  }")
        for o in self._outputs(PATHS):
            size = self.sizes[PATHS]
            lines += [f"  STORE(args.out{o} + (chunk * {size} + {p}) * U + u, o{o}_{p});" for p in self.paths]
        return [*lines, "  }"]

    def _load(self, letter: str, kind: int, indices: Iterable[int]) -> list[str]:
        size = self.sizes[kind]
        chosen = sorted(set(indices))
        where = "{} * U + at" if kind == PATHS else f"(a * {size} + {{}}) * U + at"
        return [
            f"const V {letter}{a}_{k} = LOAD(args.in{a} + {where.format(k)});"
            for a in self._operands(kind)
            for k in chosen
        ]

    def _block(self, block: Block) -> list[str]:
        rows = _rows(block)
        lines = ["const I at = AGAIN(u);" if self.crowded else "const I at = u;"]
        lines += self._load("W", PATHS, (p for p, _ in rows)) + self._load("b", OUT, (i for _, i in rows))
        lines += self._load("G", ENVIRONMENT, (j for j, _ in block)) + self._load("v", VECTOR, (m for _, m in block))
        for k, key in enumerate(self.products["h"]):
            for p, i in rows:
                lines.append(f"const V h{k}_{p}_{i} = " + " + ".join(f"W{w}_{p} * b{b}_{i}" for w, b in key) + ";")
        for k in range(len(self.products["x"])):
            lines.append("V " + ", ".join(f"t{k}_{p}_{i} = ZERO" for p, i in rows) + ";")
        for (j, m), entries in sorted(block.items()):
            lines += ["{", *("  " + line for line in self._pair(j, m, entries)), "}"]
        for p, i in rows:
            for o in self._outputs(OUT):
                for w, key in self.uses[o].items():
                    lines.append(f"o{o}_{i} = FUSED(W{w}_{p}, t{self.products['x'].index(key)}_{p}_{i}, o{o}_{i});")
            for o in self._outputs(PATHS):
                for b, key in self.uses[o].items():
                    lines.append(f"o{o}_{p} = FUSED(b{b}_{i}, t{self.products['x'].index(key)}_{p}_{i}, o{o}_{p});")
        return lines

    def _pair(self, j: int, m: int, entries: list[tuple[int, int, float]]) -> list[str]:
        lines = []
        for k, key in enumerate(self.products["x"]):
            lines.append(f"const V x{k} = " + " + ".join(f"G{g}_{j} * v{v}_{m}" for g, v in key) + ";")
            lines += [f"t{k}_{p}_{i} = FUSED(x{k}, T({c!r}), t{k}_{p}_{i});" for p, i, c in entries]
        for k in range(len(self.products["h"])):
            total = ""
            for p, i, c in entries:
                total = f"FUSED(h{k}_{p}_{i}, T({c!r}), {total})" if total else f"h{k}_{p}_{i} * T({c!r})"
            lines.append(f"const V S{k} = {total};")
        for o in self._outputs(ENVIRONMENT):
            for v, key in self.uses[o].items():
                lines.append(f"o{o}_{j} = FUSED(v{v}_{m}, S{self.products['h'].index(key)}, o{o}_{j});")
        for o in self._outputs(VECTOR):
            for g, key in self.uses[o].items():
                lines.append(f"o{o}_{m} = FUSED(G{g}_{j}, S{self.products['h'].index(key)}, o{o}_{m});")
        return lines
