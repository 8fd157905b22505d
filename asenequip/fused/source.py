"""C++ text of the fused evaluation of one architecture; the weights are not in it."""

from __future__ import annotations

from pathlib import Path

from asenequip.fused.harmonics import harmonics_text
from asenequip.fused.plan import DEGREE, Plan
from asenequip.kernels.paths import component_irrep, harmonics_irreps


def source_text(plan: Plan, dtype: str) -> str:
    """The complete translation unit.

    Parameters
    ----------
    plan : Plan
    dtype : {"float32", "float64", "bfloat16"}
        The last rounds the operands of the products of edges and weights; all else is float32.

    Returns
    -------
    str
    """
    here = Path(__file__).parent
    head = [
        f"#define T {'double' if dtype == 'float64' else 'float'}",
        f"#define LANES {plan.lanes}",
        f"#define DEGREE {DEGREE}",
    ]
    if dtype == "float64":
        head.append("#define FUSED_DOUBLE")
    products = ["#define MATRIX(at) (W + at)"]
    if dtype == "bfloat16":
        products = [
            (here / "bf16.hpp").read_text(),
            "#define MATRIX(at) (reinterpret_cast<const uint16_t*>(W + W_END) + at)",
        ]
    return "\n".join(
        [
            *head,
            (here / "fused.hpp").read_text(),
            *products,
            _constants(plan),
            _lane_sums(plan.lanes),
            harmonics_text(plan.spec.l_max),
            _workspace(plan),
            _forward(plan),
            _backward(plan),
            _gradient(plan),
            (here / "driver.hpp").read_text(),
            (here / "lists.hpp").read_text(),
        ]
    )


def _constants(plan: Plan) -> str:
    offsets, size = plan.offsets()
    lines = [
        f"static constexpr int D = {plan.spec.num_harmonics}, U = {plan.channels}, H = {plan.hidden},"
        f" HR = {plan.readout}, ROW = {plan.row}, CHAINS = {len(plan.chains())};"
    ]
    lines += [f"static constexpr int AT_{name} = {start};" for name, (start, _) in plan.columns().items()]
    lines += [f"static constexpr int64_t W_{name} = {start};" for name, start in {**offsets, "END": size}.items()]
    lines += [f"static constexpr int CHAIN_{name} = {k};" for k, name in enumerate(plan.chains())]
    return "\n".join(lines)


def _lane_sums(lanes: int) -> str:
    """Sums over the lanes of ``lanes`` vectors at once: lane k of the result belongs to vector k."""
    lines, width = [], 1
    widths = []
    while width < lanes:
        low = [k if (k // width) % 2 == 0 else lanes + k - width for k in range(lanes)]
        high = [k + width if (k // width) % 2 == 0 else lanes + k for k in range(lanes)]
        shuffle = "SHUFFLE(a, b, {})"
        masks = [shuffle.format(", ".join(map(str, mask))) for mask in (low, high)]
        lines.append(f"INLINE V merge_{width}(V a, V b) {{ return {masks[0]} + {masks[1]}; }}")
        widths.append(width)
        width *= 2
    names = [f"v[{k}]" for k in range(lanes)]
    for w in widths:
        names = [f"merge_{w}({names[k]}, {names[k + 1]})" for k in range(0, len(names), 2)]
    lines.append(f"INLINE V transposed_sum(const V* v) {{ return {names[0]}; }}")
    return "\n".join(lines)


def _workspace(plan: Plan) -> str:
    """Scratch of one thread: arrays with a row per edge, then arrays of the centre."""
    spec = plan.spec
    rows = {"tab": "ROW", "gr": "HR", "hr": "HR", "sr": "HR", "gy": "D", "y": "D", "dir": "3", "local": "1"}
    for d in range(1, spec.readout_depth):
        rows[f"sr_{d}"] = "HR"
    for k in range(spec.num_layers):
        rows.update({f"gq_{k}": "U", f"g_{k}": "H"})
        for d in range(spec.latent_depth):
            rows.update({f"h_{k}_{d}": "H", f"s_{k}_{d}": "H"})
    rows["q"] = "U"
    fixed = {}
    for k in range(spec.num_layers):
        fixed.update({f"G_{k}": "D * U", f"gG_{k}": "D * U"})
        if k:
            fixed.update({f"B_{k}": "D * H", f"gB_{k}": "D * H"})
        for l in range(k + 1):
            fixed.update({f"v_{k}_{l}": f"{plan.dim(l)} * U", f"gv_{k}_{l}": f"{plan.dim(l)} * U"})
    fixed["ones"] = "U"
    lines = ["struct Work {", "  int capacity = 0, stride = 0;", "  std::vector<T> memory;"]
    lines += [f"  T* {name};" for name in (*rows, *fixed)]
    lines += [
        "  std::vector<int64_t> edge, row;",
        "  std::vector<double> length;",
        "  void reserve(int edges) {",
        "    if (edges <= capacity) return;",
        "    capacity = edges + edges / 4 + 8;",
        "    stride = (capacity + LANES - 1) / LANES * LANES;",
        "    edge.resize(stride); row.resize(stride); length.resize(stride);",
        f"    memory.assign(size_t(stride) * ({' + '.join(rows.values())}) + {' + '.join(fixed.values())} + 64, T(0));",
        "    T* p = memory.data();",
        "    while (reinterpret_cast<uintptr_t>(p) % 64) ++p;",
    ]
    lines += [f"    {name} = p; p += size_t(stride) * ({width});" for name, width in rows.items()]
    lines += [f"    {name} = p; p += {size};" for name, size in fixed.items()]
    lines += ["    std::fill(ones, ones + U, T(1));", "  }", "};"]
    return "\n".join(lines)


def _irrep_ranges(l_max: int) -> list[tuple[int, int]]:
    """(first component, number of components) of each irrep."""
    return [(l * l, 2 * l + 1) for l in range(l_max + 1)]


def _forward(plan: Plan) -> str:
    """Energies of the edges of one centre (sum returned); leaves what the way back needs in the workspace."""
    spec = plan.spec
    out = [
        "static double forward(const T* W, const Couplings* couplings, T norm, Work& w, int Z) {",
        "  const int S = w.stride;",
    ]
    for k in range(spec.num_layers):
        if k == 0:
            for r, (i, count) in enumerate(_irrep_ranges(spec.l_max)):
                column = f"AT_env + {r if plan.env_irreps > 1 else 0} * U"
                out.append(f"  accumulate<{count}, U>(Z, w.tab + {column}, ROW, w.y + {i} * S, S, w.G_0 + {i} * U);")
        else:
            last = f"w.h_{k - 1}_{spec.latent_depth - 1}"
            for r, (i, count) in enumerate(_irrep_ranges(spec.l_max)):
                weights = f"W + W_env_{k} + {r if plan.env_irreps > 1 else 0} * H * U"
                out.append(f"  accumulate<{count}, H>(Z, {last}, H, w.y + {i} * S, S, w.B_{k} + {i} * H);")
                out.append(f"  product<H, U>({count}, w.B_{k} + {i} * H, H, {weights}, w.G_{k} + {i} * U, U, false);")
        out.append(f"  for (int k = 0; k < D * U; ++k) w.G_{k}[k] *= norm;")
        out.append(
            f"  chain<U>(couplings[CHAIN_scalar_{k}], W + W_path_{k}, w.G_{k}, w.ones, {plan.dim(k)}, w.v_{k}_{k});"
        )
        for l in range(k - 1, -1, -1):
            out.append(
                f"  chain<U>(couplings[CHAIN_full_{l}], W + W_path_{l}, w.G_{l}, w.v_{k}_{l + 1},"
                f" {plan.dim(l)}, w.v_{k}_{l});"
            )
        out += _edge_dot(plan, k)
        out.append(f"  product<U, H>(Z, w.q, U, MATRIX(W_q_{k}), w.tab + AT_pre_{k}, ROW, true);")
        for j in range(k):
            source = f"w.h_{j}_{spec.latent_depth - 1}"
            out.append(f"  product<H, H>(Z, {source}, H, MATRIX(W_h_{j}_{k}), w.tab + AT_pre_{k}, ROW, true);")
        out.append(f"  silu<H>(Z, w.tab + AT_pre_{k}, ROW, w.h_{k}_0, w.s_{k}_0, H);")
        for d in range(1, spec.latent_depth):
            out.append(f"  product<H, H>(Z, w.h_{k}_{d - 1}, H, MATRIX(W_mid_{k}_{d}), w.h_{k}_{d}, H, false);")
            out.append(f"  silu<H>(Z, w.h_{k}_{d}, H, w.h_{k}_{d}, w.s_{k}_{d}, H);")
    for k in range(spec.num_layers):
        source = f"w.h_{k}_{spec.latent_depth - 1}"
        out.append(f"  product<H, HR>(Z, {source}, H, MATRIX(W_h_{k}_r), w.tab + AT_pre_r, ROW, true);")
    out.append("  silu<HR>(Z, w.tab + AT_pre_r, ROW, w.hr, w.sr, HR);")
    for d in range(1, spec.readout_depth):
        out.append(f"  product<HR, HR>(Z, w.hr, HR, MATRIX(W_mid_r_{d}), w.gr, HR, false);")
        out.append(f"  silu<HR>(Z, w.gr, HR, w.hr, w.sr_{d}, HR);")
    out += [
        "  double energy = 0;",
        "  for (int z = 0; z < Z; ++z) {",
        "    V e{};",
        "    for (int h = 0; h < HR; h += LANES) e += load(w.hr + z * HR + h) * load(W + W_out + h);",
        "    energy += sum(e);",
        "  }",
        "  return energy;",
        "}",
    ]
    return "\n".join(out)


def _edge_dot(plan: Plan, k: int) -> list[str]:
    """q[z][u] = sum_r embed[z][r][u] sum_{i in r} Y[z][i] A_k[i][u]."""
    lines = ["  for (int z = 0; z < Z; ++z)", "    for (int u = 0; u < U; u += LANES) {", "      V q{}, t;"]
    for r, (i, count) in enumerate(_irrep_ranges(plan.spec.l_max)):
        terms = [f"w.y[{i + c} * S + z] * load(w.v_{k}_0 + {i + c} * U + u)" for c in range(count)]
        lines.append(f"      t = {' + '.join(terms)};")
        lines.append(f"      q += t * load(w.tab + z * ROW + AT_embed + {r} * U + u);")
    return [*lines, "      store(w.q + z * U + u, q);", "    }"]


def _backward(plan: Plan) -> str:
    """From the energy back to every row of the table and to the environments; ``factor`` is dE/d(edge energy)."""
    spec = plan.spec
    top = spec.readout_depth - 1
    slope = f"w.sr_{top}" if top else "w.sr"
    out = [
        "static void backward(const T* W, const Couplings* couplings, T norm, T factor, Work& w, int Z) {",
        "  const int S = w.stride;",
        "  for (int z = 0; z < Z; ++z)",
        "    for (int h = 0; h < HR; h += LANES)",
        f"      store(w.gr + z * HR + h, factor * load(W + W_out + h) * load({slope} + z * HR + h));",
    ]
    for d in range(top, 0, -1):
        below = f"w.sr_{d - 1}" if d > 1 else "w.sr"
        out.append(f"  product<HR, HR>(Z, w.gr, HR, MATRIX(W_mid_r_{d}T), w.hr, HR, false);")
        out.append(f"  scale_by<HR>(Z, w.hr, HR, {below}, HR);")
        out.append("  std::swap(w.gr, w.hr);")
    out += [f"  std::fill(w.gG_{k}, w.gG_{k} + D * U, T(0));" for k in range(spec.num_layers)]
    for k in range(spec.num_layers - 1, -1, -1):
        out.append(f"  product<HR, H>(Z, w.gr, HR, MATRIX(W_h_{k}_rT), w.g_{k}, H, false);")
        for j in range(k + 1, spec.num_layers):
            out.append(f"  product<H, H>(Z, w.g_{j}, H, MATRIX(W_h_{k}_{j}T), w.g_{k}, H, true);")
        if k + 1 < spec.num_layers:
            out.append(f"  spread<D, H>(Z, w.gB_{k + 1}, w.y, S, w.g_{k}, H);")
        out.append(f"  scale_by<H>(Z, w.g_{k}, H, w.s_{k}_{spec.latent_depth - 1}, H);")
        for d in range(spec.latent_depth - 1, 0, -1):
            # h_k_d of the layers below the top is free by now
            out.append(f"  product<H, H>(Z, w.g_{k}, H, MATRIX(W_mid_{k}_{d}T), w.s_{k}_{d}, H, false);")
            out.append(f"  scale_by<H>(Z, w.s_{k}_{d}, H, w.s_{k}_{d - 1}, H);")
            out.append(f"  std::swap(w.g_{k}, w.s_{k}_{d});")
        out.append(f"  product<H, U>(Z, w.g_{k}, H, MATRIX(W_q_{k}T), w.gq_{k}, U, false);")
        out += _operator_gradient(plan, k)
        out += _chain_gradient(plan, k)
        out.append(f"  for (int k = 0; k < D * U; ++k) w.gG_{k}[k] *= norm;")
        if k:
            for r, (i, count) in enumerate(_irrep_ranges(spec.l_max)):
                weights = f"W + W_env_{k}T + {r if plan.env_irreps > 1 else 0} * U * H"
                out.append(f"  product<U, H>({count}, w.gG_{k} + {i} * U, U, {weights}, w.gB_{k} + {i} * H, H, false);")
    return "\n".join([*out, "}"])


def _operator_gradient(plan: Plan, k: int) -> list[str]:
    """gA_k[i][u] = sum_z gq[z][u] embed[z][r(i)][u] Y[z][i]."""
    lines = []
    for r, (i, count) in enumerate(_irrep_ranges(plan.spec.l_max)):
        names = [f"a{c}" for c in range(count)]
        lines += [
            "  for (int u = 0; u < U; u += LANES) {",
            f"    V {', '.join(f'{n}{{}}' for n in names)};",
            "    for (int z = 0; z < Z; ++z) {",
            f"      const V t = load(w.gq_{k} + z * U + u) * load(w.tab + z * ROW + AT_embed + {r} * U + u);",
            *[f"      {n} += t * w.y[{i + c} * S + z];" for c, n in enumerate(names)],
            "    }",
            *[f"    store(w.gv_{k}_0 + {i + c} * U + u, {n});" for c, n in enumerate(names)],
            "  }",
        ]
    return lines


def _chain_gradient(plan: Plan, k: int) -> list[str]:
    lines = []
    for l in range(k):
        lines.append(f"  std::fill(w.gv_{k}_{l + 1}, w.gv_{k}_{l + 1} + {plan.dim(l + 1)} * U, T(0));")
        lines.append(
            f"  chain_back<U>(couplings[CHAIN_full_{l}], W + W_path_{l}, w.G_{l}, w.v_{k}_{l + 1},"
            f" w.gv_{k}_{l}, w.gG_{l}, w.gv_{k}_{l + 1});"
        )
    lines.append(
        f"  chain_back<U>(couplings[CHAIN_scalar_{k}], W + W_path_{k}, w.G_{k}, w.ones,"
        f" w.gv_{k}_{k}, w.gG_{k}, nullptr);"
    )
    return lines


def _gradient(plan: Plan) -> str:
    """Per edge: the gradient with respect to its harmonics (w.gy) and to its distance (w.local, in table units)."""
    spec = plan.spec
    groups = -(-spec.num_harmonics // plan.lanes)
    shared = plan.env_irreps == 1
    out = [
        "static void edge_gradient(const T* table, Work& w, int Z) {",
        "  const int S = w.stride;",
        "  for (int z = 0; z < Z; ++z) {",
        f"    V g[{groups * plan.lanes}] = {{}};",
        "    V slope{};",
        "    const T t = w.local[z];",
        "    const T* c = table + w.row[z];",
        "    const T* tab = w.tab + z * ROW;",
        *([f"    V gw[U / LANES] = {{}};"] if shared else []),  # noqa: F541
        "    for (int u = 0; u < U; u += LANES) {",
    ]
    out += [f"      const V q{k} = load(w.gq_{k} + z * U + u);" for k in range(spec.num_layers)]
    irrep = component_irrep(harmonics_irreps(spec.l_max))
    out.append("      V e, n, ge, ga, s, G, y;")
    for r, (first, count) in enumerate(_irrep_ranges(spec.l_max)):
        re = 0 if shared else r
        out.append(f"      e = load(tab + AT_embed + {r} * U + u); n = load(tab + AT_env + {re} * U + u);")
        out.append("      ge = V{}; ga = V{};")
        for i in range(first, first + count):
            terms = [f"q{k} * load(w.v_{k}_0 + {i} * U + u)" for k in range(spec.num_layers)]
            out.append(f"      s = {' + '.join(terms)}; G = load(w.gG_0 + {i} * U + u); y = all(w.y[{i} * S + z]);")
            out.append(f"      ge += y * s; ga += y * G; g[{i}] += e * s + n * G;")
        out.append(f"      slope += ge * polynomial_slope(c + AT_embed + {r} * U + u, ROW, t);")
        if shared:
            out.append("      gw[u / LANES] += ga;")
        else:
            out.append(f"      slope += ga * polynomial_slope(c + AT_env + {r} * U + u, ROW, t);")
    if shared:
        out.append("      slope += gw[u / LANES] * polynomial_slope(c + AT_env + u, ROW, t);")
    out.append("    }")
    for k in range(spec.num_layers):
        out += [
            "    for (int h = 0; h < H; h += LANES)",
            f"      slope += load(w.g_{k} + z * H + h) * polynomial_slope(c + AT_pre_{k} + h, ROW, t);",
        ]
    out += [
        "    for (int h = 0; h < HR; h += LANES)",
        "      slope += load(w.gr + z * HR + h) * polynomial_slope(c + AT_pre_r + h, ROW, t);",
    ]
    for k in range(1, spec.num_layers):
        out += [
            "    for (int h = 0; h < H; h += LANES) {",
            f"      const V x = load(w.h_{k - 1}_{spec.latent_depth - 1} + z * H + h);",
            *[f"      g[{i}] += x * load(w.gB_{k} + {i} * H + h);" for i in range(len(irrep))],
            "    }",
        ]
    for group in range(groups):
        width = min(plan.lanes, spec.num_harmonics - group * plan.lanes)
        out.append(f"    {{ const V s = transposed_sum(g + {group * plan.lanes});")
        out += [f"      w.gy[{group * plan.lanes + k} * S + z] = s[{k}];" for k in range(width)]
        out.append("    }")
    return "\n".join([*out, "    w.local[z] = sum(slope);", "  }", "}"])
