"""Bodies of the edge form.

Two partial products occur in every output, per irrep r: ``t_r = sum g w_r`` (for gradients of Y and A) and
``s_r = sum_{i in r} Y_i A_i`` (for gradients of g and w), each summed over the pairs of operands that share its use.
"""

from __future__ import annotations

from collections.abc import Iterable

from asenequip.kernels.polynomial import ATOM, HARMONICS, SCALE, WEIGHTS, EdgeForm, Polynomial

Key = tuple[tuple[int, ...], ...]
"""A sum of products: the operands of each product, sorted."""


def edge_body(polynomial: Polynomial) -> str:
    """The body for one atom and one tile of channels."""
    return _Edge(polynomial).text()


class _Edge:
    def __init__(self, polynomial: Polynomial) -> None:
        if not isinstance(polynomial.form, EdgeForm):
            raise TypeError(f"The edge generator takes polynomials of the edge form. Got {polynomial.form!r} instead.")
        self.form = polynomial.form
        self.kinds = polynomial.operands
        self.outputs = polynomial.outputs
        self.size = len(self.form.irrep)
        # For each output: {operand that multiplies: key of the partial product it multiplies}.
        self.uses = [self._group(o.kind, o.terms) for o in polynomial.outputs]
        inner = {SCALE: "s", WEIGHTS: "s", HARMONICS: "t", ATOM: "t"}
        self.products: dict[str, list[Key]] = {"s": [], "t": []}
        for output, use in zip(self.outputs, self.uses, strict=True):
            for key in use.values():
                known = self.products[inner[output.kind]]
                if key not in known:
                    known.append(key)

    def _group(self, kind: int, terms: Iterable[tuple[int, ...]]) -> dict[int, Key]:
        """Terms of an output of one kind, gathered by the operand outside the partial product (-1: none)."""
        outside = {SCALE: WEIGHTS, WEIGHTS: SCALE, HARMONICS: ATOM, ATOM: HARMONICS}[kind]
        groups: dict[int, list[tuple[int, ...]]] = {}
        for term in terms:
            lead = next((a for a in term if self.kinds[a] == outside), -1)
            groups.setdefault(lead, []).append(tuple(a for a in term if a != lead))
        return {lead: tuple(sorted(products)) for lead, products in groups.items()}

    def text(self) -> str:
        lines = ["TILE(tile) {", "  const I U = args.U, begin = args.ptr[n], end = args.ptr[n + 1];"]
        for a in self._operands(ATOM):
            lines += [
                f"  const V A{a}_{i} = LOAD(args.in{a} + (n * {self.size} + {i}) * U + u);" for i in range(self.size)
            ]
        for o in self._outputs(ATOM):
            lines.append("  V " + ", ".join(f"B{o}_{i} = ZERO" for i in range(self.size)) + ";")
        lines.append("  EDGES for (I z = begin; z < end; ++z) {")
        lines += ["    " + line for line in self._edge()]
        lines.append("  }")
        for o in self._outputs(ATOM):
            lines += [f"  STORE(args.out{o} + (n * {self.size} + {i}) * U + u, B{o}_{i});" for i in range(self.size)]
        return "\n".join([*lines, "}"])

    def _operands(self, kind: int) -> list[int]:
        return [a for a, k in enumerate(self.kinds) if k == kind]

    def _outputs(self, kind: int) -> list[int]:
        return [o for o, output in enumerate(self.outputs) if output.kind == kind]

    def _edge(self) -> list[str]:
        lines = [f"const V g{a} = LOAD(args.in{a} + z * U + u);" for a in self._operands(SCALE)]
        for a in self._operands(HARMONICS):
            lines += [f"const T y{a}_{i} = args.in{a}[z * {self.size} + {i}];" for i in range(self.size)]
        lines += [f"V part{o}[{self.size}];" for o in self._outputs(HARMONICS)]
        lines += [f"V q{o} = ZERO;" for o in self._outputs(SCALE)]
        for r in range(self.form.num_weights):
            components = [i for i, own in enumerate(self.form.irrep) if own == r]
            lines += ["{", *("  " + line for line in self._irrep(r, components)), "}"]
        lines += [f"STORE(args.out{o} + z * U + u, q{o});" for o in self._outputs(SCALE)]
        for slot, o in enumerate(self._outputs(HARMONICS)):
            lines.append(f"REDUCE({self.size}, {slot}, part{o}, args.out{o});")
        return lines

    def _irrep(self, r: int, components: list[int]) -> list[str]:
        row = f"(z * {self.form.num_weights} + {r}) * U + u"
        lines = [f"const V w{a} = LOAD(args.in{a} + {row});" for a in self._operands(WEIGHTS)]
        for k, key in enumerate(self.products["t"]):
            factors = [" * ".join(f"{'gw'[self.kinds[a]]}{a}" for a in product) for product in key]
            lines.append(f"const V t{k} = {' + '.join(factors)};")
        lines += [f"V s{k} = ZERO;" for k in range(len(self.products["s"]))]
        for i in components:
            lines += self._component(i)
        for o in self._outputs(SCALE):
            lines += [f"q{o} = FUSED(w{a}, s{self.products['s'].index(key)}, q{o});" for a, key in self.uses[o].items()]
        for o in self._outputs(WEIGHTS):
            sums = {a: f"s{self.products['s'].index(key)}" for a, key in self.uses[o].items()}
            value = " + ".join(s if a == -1 else f"g{a} * {s}" for a, s in sums.items())
            lines.append(f"STORE(args.out{o} + {row}, {value});")
        return lines

    def _component(self, i: int) -> list[str]:
        lines = []
        for k, key in enumerate(self.products["s"]):
            lines += [f"s{k} = FUSED(A{a}_{i}, y{y}_{i}, s{k});" for y, a in key]
        for o in self._outputs(HARMONICS):
            lines.append(f"part{o}[{i}] = " + self._sum(f"A{{}}_{i}", self.uses[o]) + ";")
        for o in self._outputs(ATOM):
            lines += [
                f"B{o}_{i} = FUSED(t{self.products['t'].index(key)}, y{y}_{i}, B{o}_{i});"
                for y, key in self.uses[o].items()
            ]
        return lines

    def _sum(self, name: str, use: dict[int, Key]) -> str:
        value = ""
        for a, key in use.items():
            product = f"t{self.products['t'].index(key)}", name.format(a)
            value = f"FUSED({product[0]}, {product[1]}, {value})" if value else f"{product[0]} * {product[1]}"
        return value
