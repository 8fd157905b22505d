"""Constant folding: an Allegro model as the arrays that the fused evaluation reads.

Three exact identities and one measured approximation:

* linear maps that follow each other without a nonlinearity are multiplied out (the last layer of one MLP and the scalar
  rows of the first layer of the next);
* the environment weights of the later layers are linear in hidden units, so the moments ``sum_z hidden[z,h] Y[z,j]``
  are accumulated and multiplied by those weights once per centre;
* everything that depends on the distance and the two types alone is one function per pair of types;
* that function is tabulated: polynomials of degree 5 through the Chebyshev points of equal intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asenequip.fused.plan import DEGREE, Plan
from asenequip.kernels.paths import LayerPaths
from asenequip.model.allegro import Allegro
from asenequip.model.mlp import MLP


@dataclass(frozen=True)
class RadialTable:
    """Radial functions of every ordered pair of types.

    Attributes
    ----------
    coefficients : (T*T, intervals, DEGREE+1, row)
        Powers of the local coordinate, -1 to 1 over an interval.
    slope_error : float
        Largest error of a slope at the points farthest from the nodes, relative to the largest slope.
    """

    coefficients: np.ndarray
    slope_error: float

    @property
    def intervals(self) -> int:
        """Intervals from zero to the cutoff."""
        return self.coefficients.shape[1]


def scaled(mlp: MLP, k: int) -> Tensor:
    """Weight matrix k of an MLP with its scale, (in, out) float64."""
    index = k % len(mlp.weights)
    return mlp.weights[index].detach().to(torch.float64) * mlp.scales[index]


def _pad(matrix: Tensor, *shape: int) -> Tensor:
    out = torch.zeros(shape, dtype=torch.float64)
    out[tuple(slice(0, n) for n in matrix.shape)] = matrix
    return out


def _channels(columns: Tensor, irreps: int, plan: Plan) -> Tensor:
    """Columns (in, r u) -> (in, r U) with the channels padded."""
    u = plan.spec.num_tensor_features
    return _pad(columns.reshape(-1, irreps, u), columns.shape[0], irreps, plan.channels).flatten(1)


def fold_weights(model: Allegro, plan: Plan) -> np.ndarray:
    """The parameter block, float64, as `Plan.offsets` lays it out."""
    spec = plan.spec
    arrays: dict[str, Tensor] = {}
    s, h, r, u = spec.num_scalar_features, plan.hidden, plan.readout, plan.channels
    readout_first = scaled(model.readout, 0)
    for k, latent in enumerate(model.latents):
        first, last = scaled(latent, 0), scaled(latent, -1)  # type: ignore[arg-type]
        arrays[f"q_{k}"] = _pad(first[s * (k + 1) :], u, h)
        out = last[:, :s]
        arrays[f"h_{k}_r"] = _pad(out @ readout_first[s * (k + 1) : s * (k + 2)], h, r)
        for later in range(k + 1, spec.num_layers):
            rows = scaled(model.latents[later], 0)[s * (k + 1) : s * (k + 2)]  # type: ignore[arg-type]
            arrays[f"h_{k}_{later}"] = _pad(out @ rows, h, h)
        for d in range(1, spec.latent_depth):
            arrays[f"mid_{k}_{d}"] = _pad(scaled(latent, d), h, h)  # type: ignore[arg-type]
        if k + 1 < spec.num_layers:
            env = _channels(last[:, s:], plan.env_irreps, plan).reshape(-1, plan.env_irreps, u)
            arrays[f"env_{k + 1}"] = _pad(env.transpose(0, 1), plan.env_irreps, h, u)
        path = model.track.path_weights[k].detach().to(torch.float64)
        arrays[f"path_{k}"] = _pad(path.expand(-1, spec.num_tensor_features), path.shape[0], u)
    for d in range(1, spec.readout_depth):
        arrays[f"mid_r_{d}"] = _pad(scaled(model.readout, d), r, r)
    arrays["out"] = _pad(scaled(model.readout, -1)[:, 0], r)
    offsets, size = plan.offsets()
    block = np.zeros(size)
    for name, shape in plan.shapes().items():
        array = arrays[name] if name in arrays else arrays[name[:-1]].transpose(-1, -2)
        if tuple(array.shape) != shape:
            raise ValueError(f"The array '{name}' has shape {tuple(array.shape)}, expected {shape}.")
        block[offsets[name] : offsets[name] + array.numel()] = array.reshape(-1).numpy()
    return block


def with_bfloat16(weights: np.ndarray, plan: Plan) -> np.ndarray:
    """The parameter block in float32, and behind it its matrices in bfloat16, rows 2k and 2k+1 interleaved.

    The copy of a matrix has the place of the original, counted from the end of the block in bfloat16 numbers.
    """
    offsets, size = plan.offsets()
    packed = torch.zeros(size, dtype=torch.bfloat16)
    for name, shape in plan.shapes().items():
        if name.startswith(("q_", "h_", "mid_")):
            place = slice(offsets[name], offsets[name] + shape[0] * shape[1])
            matrix = torch.from_numpy(weights[place]).reshape(shape[0] // 2, 2, shape[1])
            packed[place] = matrix.transpose(1, 2).reshape(-1).to(torch.bfloat16)
    return np.concatenate([weights.astype(np.float32), packed.view(torch.float32).numpy()])


def radial_columns(model: Allegro, plan: Plan) -> Tensor:
    """Linear map from the two-body scalars to a row of the table, (S, row) float64."""
    spec = plan.spec
    s = spec.num_scalar_features
    project = scaled(model.project, 0)
    blocks = {
        "embed": _channels(scaled(model.embed, 0), spec.l_max + 1, plan),
        "env": _channels(project[:, s:], plan.env_irreps, plan),
    }
    for k, latent in enumerate(model.latents):
        first = scaled(latent, 0)  # type: ignore[arg-type]
        blocks[f"pre_{k}"] = _pad(project[:, :s] @ first[:s], s, plan.hidden)
    blocks["pre_r"] = _pad(project[:, :s] @ scaled(model.readout, 0)[:s], s, plan.readout)
    return torch.cat([blocks[name] for name in plan.columns()], dim=1)


def tabulate(model: Allegro, plan: Plan, tolerance: float, max_intervals: int = 1024) -> RadialTable:
    """Polynomials of the radial functions, with as many intervals as the tolerance needs.

    Parameters
    ----------
    model : Allegro
        float64.
    plan : Plan
    tolerance : float
        Largest error of the slopes, relative to the largest slope.
    max_intervals : int
        Give up refining there; the errors say what was reached.
    """
    columns = radial_columns(model, plan)
    intervals = 32
    while True:
        table = _fit(model, columns, intervals)
        if table.slope_error <= tolerance or intervals >= max_intervals:
            return table
        # slopes of degree-5 polynomials converge as the fifth power; not all the way where they are not there yet
        growth = min(max((table.slope_error / tolerance) ** (1 / DEGREE), 1.2), 4.0)
        intervals = min(max_intervals, 8 * math.ceil(intervals * growth / 8))


def _fit(model: Allegro, columns: Tensor, intervals: int) -> RadialTable:
    num_types = model.spec.num_types
    nodes = np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1))
    probes = np.linspace(-1, 1, 5)
    solve = np.linalg.inv(np.vander(nodes, increasing=True))
    left = np.arange(intervals)[:, None]
    powers = np.vander(probes, DEGREE + 1, increasing=True)
    derivative = np.zeros_like(powers)
    derivative[:, 1:] = powers[:, :-1] * np.arange(1, DEGREE + 1)
    tables, worst, largest = [], 0.0, float(np.finfo(float).tiny)
    for center in range(num_types):
        for neighbor in range(num_types):
            scalars = _scalars(model, center, neighbor)
            coefficients = solve @ _values(scalars, columns, (left + (nodes + 1) / 2) / intervals)
            tables.append(coefficients)
            slope = _slopes(scalars, columns, (left + (probes + 1) / 2) / intervals)
            found = derivative @ coefficients * 2 * intervals
            worst = float(np.maximum(worst, np.abs(found - slope).max()))
            largest = float(np.maximum(largest, np.abs(slope).max()))
    return RadialTable(np.stack(tables), worst / largest)


def _scalars(model: Allegro, center: int, neighbor: int) -> Callable[[Tensor], Tensor]:
    """The two-body scalars of a pair of types, (S,) each, as a function of reduced distances (k,) float64."""

    def scalars(x: Tensor) -> Tensor:
        types = [torch.full(x.shape, t, dtype=torch.int64) for t in (center, neighbor)]
        return model.two_body(model.radial(x, *types))

    return scalars


def _values(scalars: Callable[[Tensor], Tensor], columns: Tensor, x: np.ndarray) -> np.ndarray:
    """Radial functions at reduced distances x, (*x.shape, row) float64."""
    with torch.no_grad():
        return (scalars(torch.from_numpy(x.ravel())) @ columns).numpy().reshape(*x.shape, -1)


def _slopes(scalars: Callable[[Tensor], Tensor], columns: Tensor, x: np.ndarray) -> np.ndarray:
    """Slopes of the radial functions with respect to x, (*x.shape, row) float64."""
    flat = torch.from_numpy(x.ravel())
    with torch.no_grad():
        slope = torch.func.jvp(scalars, (flat,), (torch.ones_like(flat),))[1]
    return (slope @ columns).numpy().reshape(*x.shape, -1)


def nonzero_records(chains: dict[str, LayerPaths], dtype: str) -> np.ndarray:
    """The couplings one after the other, as the C++ struct stores them."""
    record = np.dtype([("i", "i2"), ("j", "i2"), ("m", "i2"), ("p", "i2"), ("c", dtype)], align=True)
    parts = []
    for layer in chains.values():
        nonzeros = layer.nonzeros
        part = np.zeros(len(nonzeros.i), dtype=record)
        for name in "ijmp":
            part[name] = getattr(nonzeros, name)
        part["c"] = nonzeros.value
        parts.append(part)
    return np.concatenate(parts)


def fold(
    model: Allegro, plan: Plan, dtype: str, tolerance: float, table: RadialTable | None = None
) -> dict[str, np.ndarray]:
    """All arrays of the fused evaluation.

    Parameters
    ----------
    model : Allegro
        float64, on the CPU.
    plan : Plan
    dtype : {"float32", "float64", "bfloat16"}
    tolerance : float
        See `tabulate`.
    table : RadialTable, optional
        One that was made for the columns of this plan, in place of a new one.

    Returns
    -------
    dict of str to ndarray
    """
    table = tabulate(model, plan, tolerance) if table is None else table
    norm = model.inverse_norm.numpy()
    weights = fold_weights(model, plan)
    if dtype == "bfloat16":
        weights, dtype = with_bfloat16(weights, plan), "float32"
    return {
        "weights": weights.astype(dtype),
        "nonzeros": nonzero_records(plan.chains(), dtype),
        "counts": np.array([len(layer.nonzeros.i) for layer in plan.chains().values()], dtype=np.int64),
        "table": table.coefficients.astype(dtype),
        "cutoffs": np.asarray(plan.spec.cutoff_table(), dtype=np.float64).reshape(-1),
        "norm": norm.copy(),
        "factor": model.scales.detach().numpy() * norm / np.sqrt(2.0),
        "shift": model.shifts.detach().numpy().copy(),
        **pair_constants(model),
    }


def pair_constants(model: Allegro) -> dict[str, np.ndarray]:
    """Parameters of the pair potential per ordered pair of types, as the C++ reads them."""
    from ase.data import atomic_numbers

    from asenequip.model.pair import COULOMB

    spec, pair = model.spec, model.spec.pair
    table, options = np.zeros((spec.num_types, spec.num_types, 4)), np.zeros(3)
    if pair is not None:
        options[:] = pair.envelope_exponent, ("lj", "lj_repulsive_only", "repulsive").index(pair.style), pair.exponent
    if pair is not None and pair.kind == "zbl":
        z = np.array([atomic_numbers[name] for name in spec.type_names], dtype=np.float64)
        table[..., 0] = 0.5 * COULOMB * z[:, None] * z
        table[..., 1] = (z[:, None] ** 0.23 + z**0.23) / 0.46850
    elif pair is not None:
        for k, name in enumerate(("sigma", "epsilon", "delta")):
            upper = np.triu(getattr(model.pair, name).detach().numpy())
            table[..., k] = np.maximum(upper + np.triu(upper, 1).T, 0.0)
    return {"pair": table, "pair_options": options}
