"""The hyperparameters of a nequip-allegro model, read from the model object itself."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

PARTS = (
    "edge_norm",
    "radial_chemical_embed",
    "scalar_embed_mlp",
    "tensor_embed",
    "allegro",
    "edge_readout",
    "edge_eng_sum",
    "per_type_energy_scale_shift",
    "total_energy_sum",
)
OPTIONAL_PARTS = ("cutoff", "pair_potential")

NONLINEARITIES = {
    "SiLU": "silu",
    "Mish": "mish",
    "GELU": "gelu",
    "ShiftedSoftplus": "ssp",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Identity": "none",
}

KNOWN = {
    "nequip": "GraphModel CompileGraphModel ForceStressOutput SequentialGraphNetwork EdgeLengthNormalizer "
    "PolynomialCutoff BesselEdgeLengthEncoding ScalarMLPFunction ScalarLinearLayer ScalarMLP DeepLinearMLP "
    "AvgNumNeighborsNorm PerTypeScaleShift AtomwiseReduce AddRadialCutoffToData ZBL _ZBL LennardJones _LJParam "
    "ShiftedSoftplus",
    "allegro": "ProductTypeEmbedding TwoBodySplineScalarEmbed PerClassSpline TwoBodySphericalHarmonicTensorEmbed "
    "MakeWeightedChannels Allegro_Module Contracter EdgewiseReduce",
    "e3nn": "SphericalHarmonics",
    "torch": "Embedding Sequential ModuleList ParameterList " + " ".join(NONLINEARITIES),
}


class UnsupportedError(ValueError):
    """The model holds something that has no counterpart; the message names it."""


def class_name(module: nn.Module) -> str:
    """Class name with its package, without the prefix that ``torch.package`` puts before it."""
    package = type(module).__module__.split(">.")[-1].split(".")[0]
    return f"{package}.{type(module).__name__}"


def check_modules(model: nn.Module) -> None:
    """Refuse a model that holds any module which is not part of an Allegro model.

    Raises
    ------
    UnsupportedError
        Naming the modules.
    """
    known = {f"{package}.{name}" for package, names in KNOWN.items() for name in names.split()}
    unknown = [
        f"{name or 'the model'} ({class_name(m)})" for name, m in model.named_modules() if class_name(m) not in known
    ]
    if unknown:
        shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise UnsupportedError(f"The model holds modules that no asenequip model has: {shown}.")
    children = [name for name, _ in network(model).named_children()]
    surplus = [name for name in children if name not in PARTS + OPTIONAL_PARTS]
    missing = [name for name in PARTS if name not in children]
    if surplus or missing:
        raise UnsupportedError(f"The model is no Allegro energy model: it has the parts {', '.join(children)}.")


def network(model: nn.Module) -> nn.Module:
    """The sequence of parts inside the wrappers for derivatives and input."""
    inner = getattr(model, "model", None)
    func = getattr(inner, "func", None)
    if func is None or class_name(func) != "nequip.SequentialGraphNetwork":
        raise UnsupportedError(
            f"The model is no energy model with forces: {class_name(model)} around {type(inner).__name__}."
        )
    return func


def describe(model: nn.Module) -> dict[str, Any]:
    """Hyperparameters in the words of asenequip's AllegroSpec, JSON-able.

    Parameters
    ----------
    model : nequip.nn.GraphModel
        In float64, its constants exact (see `promote`).

    Returns
    -------
    dict
        ``type_names``; ``spec``: every field but ``type_names``; ``alphas``: the scale of every linear layer by its
        weight's name; ``zbl_numbers``: atomic numbers of the ZBL term, or None.

    Raises
    ------
    UnsupportedError
        For anything asenequip cannot represent.
    """
    check_modules(model)
    parts = dict(network(model).named_children())
    type_names = list(model.type_names)  # type: ignore[arg-type]
    spec: dict[str, Any] = {}
    spec.update(_cutoffs(parts["edge_norm"], len(type_names)))
    spec.update(_radial(parts["radial_chemical_embed"]))
    spec.update(_tensor_track(parts["allegro"], parts["tensor_embed"]))
    mlps = {
        "two_body": [parts["scalar_embed_mlp"].mlp_module],
        "latent": list(parts["allegro"].latents),  # type: ignore[arg-type]
        "readout": [parts["edge_readout"].mlp_module],
    }
    for name, functions in mlps.items():
        spec.update(_mlp(name, functions))  # type: ignore[arg-type]
    spec["forward_normalize"] = _forward_normalize(model)
    spec["avg_num_neighbors"] = _neighbors(parts, len(type_names))
    scale_shift: Any = parts["per_type_energy_scale_shift"]
    spec["scales_trainable"] = bool(scale_shift.scales_trainable) and bool(scale_shift.has_scales)
    spec["shifts_trainable"] = bool(scale_shift.shifts_trainable) and bool(scale_shift.has_shifts)
    for part, wanted in (("edge_eng_sum", "sum"), ("total_energy_sum", "sum")):
        if parts[part].reduce != wanted:
            raise UnsupportedError(f"The part '{part}' takes the {parts[part].reduce} of the energies, not their sum.")
    pair = parts.get("pair_potential")
    spec["pair"] = None if pair is None else _pair(pair)
    numbers = pair.atomic_numbers.tolist() if type(pair).__name__ == "ZBL" else None  # type: ignore[union-attr,operator]
    return {"type_names": type_names, "spec": spec, "alphas": _alphas(model), "zbl_numbers": numbers}


def _cutoffs(norm: Any, num_types: int) -> dict[str, Any]:
    """Cutoff and table of cutoffs; a stored reciprocal is taken back to the shortest decimal it can come from."""
    cutoff = float(norm.r_max)
    if not norm._per_edge_type:
        return {"cutoff": cutoff, "pair_cutoffs": None}
    radii = [_shortest(value, lambda r: 1.0 / r, 1.0 / value) for value in norm._rmax_recip.double().tolist()]
    radii = [min(r, cutoff) if r < cutoff * (1 + 1e-12) else r for r in radii]
    cutoff = max(cutoff, *radii)
    return {"cutoff": cutoff, "pair_cutoffs": [radii[k * num_types : (k + 1) * num_types] for k in range(num_types)]}


def _shortest(stored: float, forward: Any, guess: float) -> float:
    """The decimal with the fewest digits that ``forward`` takes to ``stored``; ``guess`` itself if there is none."""
    for digits in range(1, 16):
        candidate = float(f"{guess:.{digits}g}")
        if candidate and forward(candidate) == stored:
            return candidate
    return guess


def _exponent(cutoff: Any, where: str) -> int:
    if float(cutoff.p) != int(cutoff.p):
        raise UnsupportedError(f"The envelope exponent of {where} is {cutoff.p}; only integers are supported.")
    return int(cutoff.p)


def _radial(embed: Any) -> dict[str, Any]:
    if type(embed).__name__ == "TwoBodySplineScalarEmbed":
        spline = embed.spline
        return {
            "radial": "spline",
            "num_splines": int(spline.num_splines),
            "spline_span": int(spline.spline_span),
            "radial_dim": int(spline.num_channels),
        }
    names = [name for name, _ in embed.named_children()]
    if names != ["bessel_encode", "type_embed"]:
        raise UnsupportedError(f"The radial embedding {class_name(embed)} with parts {names} is unknown.")
    bessel, types = embed.bessel_encode, embed.type_embed
    return {
        "radial": "bessel",
        "num_bessels": int(bessel.num_bessels),
        "bessel_trainable": bool(bessel.trainable),
        "envelope_exponent": _exponent(bessel.cutoff, "the Bessel basis"),
        "radial_dim": 2 * int(types.center_embed.embedding_dim),
    }


def _tensor_track(allegro: Any, embed: Any) -> dict[str, Any]:
    harmonics = [(ir.l, ir.p) for _, ir in allegro.irreps_in[allegro.tensor_basis_in_field]]
    l_max = max(l for l, _ in harmonics)
    natural = [(l, (-1) ** l) for l in range(l_max + 1)]
    allowed = {(ir.l, ir.p) for _, ir in allegro.tensor_track_allowed_irreps}
    both = {(l, p) for l in range(l_max + 1) for p in (1, -1)}
    if harmonics != natural or allowed not in (both, set(natural)):
        raise UnsupportedError(
            f"The tensor track has the irreps {sorted(allowed)} on harmonics {harmonics}, a set of its own."
        )
    sh = embed.sh
    if not sh.normalize or sh.normalization != "component":
        raise UnsupportedError("The spherical harmonics are not normalised by component.")
    weighters = (embed._edge_weighter, allegro._env_weighter)
    if not embed._edge_weighter.weight_individual_irreps or any(w.alpha != 1.0 for w in weighters):
        raise UnsupportedError("The tensor embedding weights its irreps in a way of its own.")
    if any(tp.irrep_normalization != "component" for tp in allegro.tps):
        raise UnsupportedError("The tensor products are not normalised by component.")
    return {
        "l_max": int(l_max),
        "parity": allowed == both,
        "num_layers": int(allegro.num_layers),
        "num_scalar_features": int(allegro.num_scalar_features),
        "num_tensor_features": int(allegro.num_tensor_features),
        "path_channel_coupling": bool(allegro.tps[0].path_channel_coupling),
        "individual_irrep_weights": bool(allegro._env_weighter.weight_individual_irreps),
    }


def _mlp(name: str, functions: list[Any]) -> dict[str, Any]:
    """Depth, width and nonlinearity that all of ``functions`` share."""
    if any(f.bias for f in functions):
        raise UnsupportedError(f"The {name} network has biases.")
    hidden = {tuple(f.dims[1:-1]) for f in functions}
    widths = hidden.pop()
    if hidden or len(set(widths)) > 1:
        raise UnsupportedError(f"The hidden layers of the {name} network differ in width.")
    found = {nonlinearity(f) for f in functions}
    if len(found) > 1:
        raise UnsupportedError(f"The {name} network mixes the nonlinearities {sorted(found)}.")
    out: dict[str, Any] = {f"{name}_depth": len(widths), f"{name}_nonlinearity": found.pop()}
    if widths:
        out[f"{name}_width"] = int(widths[0])
    return out


def nonlinearity(function: Any) -> str:
    """Name of the nonlinearity between the layers of a ``ScalarMLPFunction``."""
    if type(function.mlp).__name__ == "DeepLinearMLP":
        return "none"
    found = {class_name(m).split(".")[-1] for m in function.mlp} - {"ScalarLinearLayer"}
    if any(type(m).__name__ == "GELU" and m.approximate != "none" for m in function.mlp):
        raise UnsupportedError("A network uses an approximate GELU.")
    if not found:
        return "silu"  # a single linear layer has none; the name is then without effect
    if len(found) > 1:
        raise UnsupportedError(f"A network mixes the nonlinearities {sorted(found)}.")
    return NONLINEARITIES[found.pop()]


def _alphas(model: nn.Module) -> dict[str, float]:
    """Scale of each linear layer, by the module's name inside the sequence of parts."""
    out = {}
    for name, module in network(model).named_modules():
        if type(module).__name__ in ("ScalarLinearLayer", "DeepLinearMLP"):
            out[name] = float(module.alpha)  # type: ignore[arg-type]
    return out


def _forward_normalize(model: nn.Module) -> bool:
    """Whether the scales follow the fan-in (True) or the fan-out (False) rule, whichever explains more of them."""
    missed = {True: 0, False: 0}
    for name, function in network(model).named_modules():
        if type(function).__name__ != "ScalarMLPFunction" or name.endswith("first_layer_env_embed_projection"):
            continue
        for forward in (True, False):
            missed[forward] += sum(
                not math.isclose(a, b, rel_tol=1e-6)
                for a, b in zip(scales_of(function), rule(function, forward), strict=True)
            )
    return missed[True] <= missed[False]


def scales_of(function: Any) -> list[float]:
    """The scales of a ``ScalarMLPFunction``: one per layer, or their product for a deep linear one."""
    if type(function.mlp).__name__ == "DeepLinearMLP":
        return [float(function.mlp.alpha)]
    return [float(m.alpha) for m in function.mlp if type(m).__name__ == "ScalarLinearLayer"]


def rule(function: Any, forward: bool) -> list[float]:
    """The scales that fan-in or fan-out normalisation prescribes, in the form of `scales_of`."""
    deep = type(function.mlp).__name__ == "DeepLinearMLP"
    plain = 0 if forward else len(function.dims) - 2
    out = []
    for k, (fan_in, fan_out) in enumerate(zip(function.dims[:-1], function.dims[1:], strict=True)):
        gain = 1.0 if deep or k == plain else math.sqrt(2.0)
        out.append(gain / math.sqrt(fan_in if forward else fan_out))
    return [math.prod(out)] if deep else out


def _neighbors(parts: dict[str, Any], num_types: int) -> list[float]:
    """Mean neighbours per type; what is stored is 1/sqrt(N)."""
    constants = parts["allegro"].avg_num_neighbors_norm.norm_const.reshape(-1).double().tolist()
    others = parts["edge_eng_sum"].norm_module.norm_const.reshape(-1).double().tolist()
    if constants != others:
        raise UnsupportedError("The environment and the edge sum are normalised by different numbers of neighbours.")
    numbers = [_shortest(c, lambda n: 1.0 / math.sqrt(n), 1.0 / c**2) for c in constants]
    return numbers * num_types if len(numbers) == 1 else numbers


def _pair(pair: Any) -> dict[str, Any]:
    exponent = _exponent(pair.cutoff, "the pair potential")
    if type(pair).__name__ == "ZBL":
        if not math.isclose(2 * float(pair._qqr2exesquare), 14.399645, rel_tol=1e-7):
            raise UnsupportedError("The ZBL term is not in eV and Angstrom (units: metal); asenequip's models are.")
        return {"kind": "zbl", "envelope_exponent": exponent}
    if any(getattr(pair, name).dim() != 2 for name in ("sigma", "epsilon", "delta")):
        raise UnsupportedError("The Lennard-Jones term lacks sigma, epsilon or delta for every pair of types.")
    trainable = [name for name in ("sigma", "epsilon", "delta") if getattr(pair, name).requires_grad]
    return {
        "kind": "lj",
        "envelope_exponent": exponent,
        "style": str(pair.lj_style),
        "exponent": float(pair.exponent),
        "trainable": trainable,
    }
