"""Last-layer prediction rigidity: standard deviations from the features that the energy is linear in.

The energy of an atom is phi . w + shift with the hidden units phi of the readout. For Gaussian residuals the posterior
of w has the covariance alpha^2 (C + s^2 1)^-1, C = sum over the training labels of d(label)/dw d(label)/dw^T / noise^2,
so that sigma^2(E) = alpha^2 f^T (C + s^2 1)^-1 f with f = sum_n phi_n (Bigi, Chong, Ceriotti and Grasselli, Mach.
Learn.: Sci. Technol. 5, 045018 (2024)); for the energy of one atom phi_n takes the place of f (local prediction
rigidity, Chong et al., J. Chem. Theory Comput. 19, 8020 (2023)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from asenequip.errors import parameter_error
from asenequip.uncertainty.calibration import conformal_quantile, likelihood_scale
from asenequip.uncertainty.slopes import Slopes, fit_slopes

if TYPE_CHECKING:
    from asenequip.artifact import Potential

RIDGES = np.logspace(-12, 0, 25)
"""Trial values of s^2, in units of the mean eigenvalue of C."""
_MIN_ATOMS = 20
"""Held-out atoms of a type that its own force scale needs; with fewer, the scale of all atoms serves."""
MAX_SCORES = 20_001
"""Scores kept for conformal bounds; more are thinned to as many evenly spaced ones."""


@dataclass(frozen=True)
class Uncertainty:
    """Standard deviations for one structure.

    Attributes
    ----------
    energy : float
        Of the total energy, eV.
    energies : (n,) float64
        Of the energy of each atom, eV.
    forces : (n,) float64
        Of each component of the force on each atom, eV/Angstrom.
    """

    energy: float
    energies: np.ndarray
    forces: np.ndarray

    @property
    def max_force(self) -> float:
        """Largest of ``forces``, 0 without atoms: what guards and selection look at."""
        return float(self.forces.max(initial=0.0))


@dataclass(frozen=True)
class Errors:
    """What was found on held-out frames, for calibration.

    Attributes
    ----------
    features : list of (n_k, d) float64
        Of the atoms of each frame.
    types : list of (n_k,) int
    energy : (k,) float64
        Label minus prediction, eV; NaN without a label.
    forces : list of (n_k, 3) float64
        eV/Angstrom; NaN without a label.
    """

    features: list[np.ndarray]
    types: list[np.ndarray]
    energy: np.ndarray
    forces: list[np.ndarray]


@dataclass(frozen=True)
class LastLayer:
    """A calibrated last-layer posterior.

    Attributes
    ----------
    type_names : tuple of str
    factors : (T,) float64
        eV: what turns summed hidden units into features, ``phi = last_layer * factors[type]``.
    root : (d, d) float64
        W with W W^T = (C + s^2 1)^-1: the bare deviation of phi is ``|phi W|``.
    energy_scale : float
        alpha of energies.
    force_scales : (T,) float64
        1/Angstrom: from the bare deviation of an atom's energy to the deviation of its force components.
    slopes : Slopes
        How that scale changes with the atom's features.
    energy_scores, force_scores, frame_scores : (m,) float64
        Ascending, of the held-out frames: ``|energy error| / deviation``; ``|force error| / deviation`` of each
        atom; the largest of these in each frame.
    record : dict
        JSON-able account of the fit.
    """

    type_names: tuple[str, ...]
    factors: np.ndarray
    root: np.ndarray
    energy_scale: float
    force_scales: np.ndarray
    slopes: Slopes
    energy_scores: np.ndarray
    force_scores: np.ndarray
    frame_scores: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        type_names: Sequence[str],
        factors: np.ndarray,
        covariance: np.ndarray,
        held_out: Errors,
        record: Mapping[str, Any] | None = None,
    ) -> LastLayer:
        """Regularise and calibrate by the likelihood of held-out errors.

        Parameters
        ----------
        type_names : sequence of str
        factors : (T,) float64
        covariance : (d, d) float64
            C, labels in units of their noise.
        held_out : Errors
            Of frames that were not trained on.
        record : mapping, optional

        Raises
        ------
        ValueError
            If the held-out frames have neither energies nor forces.
        """
        values, vectors = np.linalg.eigh(covariance)
        values = np.maximum(values, 0.0)
        unit = max(float(values.mean()), np.finfo(float).tiny)
        trials = [_calibrate(vectors / np.sqrt(values + ridge * unit), held_out, len(factors)) for ridge in RIDGES]
        best = int(np.nanargmin([trial.loss for trial in trials]))
        chosen = trials[best]
        slopes, levels, fair = _slopes(chosen, held_out)
        energy_scores, force_scores, frame_scores = map(_thinned, _scores(chosen, held_out, fair))
        account = {"ridge": float(RIDGES[best] * unit), "negative_log_likelihood": float(chosen.loss), **(record or {})}
        return cls(
            tuple(type_names),
            np.asarray(factors, np.float64),
            chosen.root,
            chosen.energy_scale,
            chosen.force_scales * levels,
            slopes,
            energy_scores,
            force_scores,
            frame_scores,
            account,
        )

    def deviations(self, last_layer: np.ndarray, types: np.ndarray) -> Uncertainty:
        """Standard deviations for one structure.

        Parameters
        ----------
        last_layer : (n, d) float64
            See `asenequip.model.allegro.Allegro.last_layer`.
        types : (n,) int
        """
        features = last_layer * self.factors[types][:, None]
        reduced = features @ self.root
        bare = np.linalg.norm(reduced, axis=1)
        total = float(np.linalg.norm(reduced.sum(axis=0)))
        forces = self.force_scales[types] * self.slopes(features, types) * bare
        return Uncertainty(self.energy_scale * total, self.energy_scale * bare, forces)

    def energy_bound(self, confidence: float = 0.9) -> float:
        """Factor on the energy's deviation below which the error of a new frame stays with this probability.

        Split-conformal (Vovk, Gammerman and Shafer 2005): holds for frames exchangeable with the held-out ones,
        whatever the distribution; infinite where they were too few for the confidence.
        """
        return conformal_quantile(self.energy_scores, confidence)

    def force_bound(self, confidence: float = 0.9, whole_frame: bool = False) -> float:
        """Factor on a force deviation below which ``|force error|`` of an atom stays with this probability.

        With ``whole_frame``: of all atoms of a frame at once.
        """
        return conformal_quantile(self.frame_scores if whole_frame else self.force_scores, confidence)

    # -- as it is stored --------------------------------------------------------------------------------------------

    def to_part(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON-able record and arrays; `from_part` is the inverse."""
        header = {"kind": "last_layer", "type_names": list(self.type_names), "energy_scale": self.energy_scale}
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return {**header, "record": self.record}, arrays | {name: getattr(self.slopes, name) for name in _SLOPES}

    @classmethod
    def of(cls, potential: Potential, owner: str) -> LastLayer:
        """What a potential carries; ``owner`` is who needs it.

        Raises
        ------
        ValueError
            If it carries none.
        """
        part = potential.uncertainty
        if part is None:
            wanted = "of a potential with an uncertainty"
            remedy = "Train with 'uncertainty:' in the settings, or add one with asenequip.uncertainty.add_uncertainty."
            raise parameter_error("evaluator", owner, wanted, "one without", remedy)
        return cls.from_part(part, len(part[1]["root"]))

    @classmethod
    def from_part(cls, part: tuple[Mapping[str, Any], Mapping[str, np.ndarray]], width: int) -> LastLayer:
        """Read what `to_part` gave; untrusted.

        Parameters
        ----------
        part : (mapping, mapping of ndarray)
        width : int
            d of the network it must belong to.

        Raises
        ------
        ValueError
            If a part is missing, of a wrong shape, or not finite.
        """
        header, arrays = part
        try:
            names = tuple(map(str, header["type_names"]))
            found = {name: np.asarray(arrays[name], np.float64) for name in _ARRAYS}
            flat = Slopes.flat(len(names), width)  # of files that were written before there were slopes
            slopes = Slopes(*(np.asarray(arrays.get(name, getattr(flat, name)), np.float64) for name in _SLOPES))
            scale, record, kind = float(header["energy_scale"]), dict(header["record"]), header["kind"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The uncertainty of this potential cannot be read: {error!r}. Fit it again.") from error
        shapes = {"factors": (len(names),), "force_scales": (len(names),), "root": (width, width)}
        good = kind == "last_layer" and scale >= 0 and all(found[k].shape == shape for k, shape in shapes.items())
        good = good and all(np.isfinite(found[k]).all() for k in shapes) and np.isfinite(scale)
        good = good and all(np.isfinite(v).all() for v in vars(slopes).values())
        good = good and all(getattr(slopes, k).shape == getattr(flat, k).shape for k in _SLOPES)
        good = good and (slopes.widths > 0).all()
        if not good or any(found[k].ndim != 1 for k in _ARRAYS if k not in shapes):
            raise ValueError("The uncertainty of this potential does not belong to its network. Fit it again.")
        return cls(names, energy_scale=scale, slopes=slopes, record=record, **found)


_ARRAYS = ("factors", "root", "force_scales", "energy_scores", "force_scores", "frame_scores")
_SLOPES = ("slopes", "centers", "widths", "ranges")


@dataclass(frozen=True)
class _Trial:
    root: np.ndarray
    energy_scale: float
    force_scales: np.ndarray
    loss: float


def _calibrate(root: np.ndarray, held_out: Errors, num_types: int) -> _Trial:
    """Maximum-likelihood scales for a root, and the mean negative log-likelihood of energies plus that of forces."""
    total = np.array([np.linalg.norm(f.sum(axis=0) @ root) for f in held_out.features])
    known = np.isfinite(held_out.energy)
    types, bare, squares = _force_errors(root, held_out)
    if not known.any() and not len(squares):
        raise parameter_error(
            "held_out", "LastLayer.fit", "frames with energies or forces", "none", "Hold labelled frames out."
        )
    losses = []
    energy_scale, everywhere = float("nan"), float("nan")
    if known.any():
        energy_scale, loss = likelihood_scale(held_out.energy[known] ** 2, total[known])
        losses.append(loss)
    force_scales = np.full(num_types, np.nan)
    if len(squares):
        everywhere, _ = likelihood_scale(squares, bare)
        for kind in range(num_types):
            mine = types == kind
            enough = np.count_nonzero(mine) >= _MIN_ATOMS
            force_scales[kind] = likelihood_scale(squares[mine], bare[mine])[0] if enough else everywhere
        deviation = np.maximum(force_scales[types] * bare, np.finfo(float).tiny)
        losses.append(float(np.mean(np.log(deviation) + 0.5 * squares / deviation**2)))
    if not np.isfinite(energy_scale):
        energy_scale = everywhere  # no energies were held out: the scale of forces in 1/Angstrom, at an Angstrom
    if not len(squares):
        force_scales[:] = energy_scale
    return _Trial(root, energy_scale, force_scales, float(np.sum(losses)))


def _force_errors(root: np.ndarray, held_out: Errors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the atoms with neighbours and force labels: types, bare deviations, mean square errors of the components."""
    types = np.concatenate(held_out.types) if held_out.types else np.zeros(0, int)
    bare = np.concatenate([np.linalg.norm(f @ root, axis=1) for f in held_out.features]) if len(types) else np.zeros(0)
    squares = np.concatenate([(f**2).mean(axis=1) for f in held_out.forces]) if len(types) else np.zeros(0)
    known = np.isfinite(squares) & (bare > 0)  # an atom alone has neither features nor forces
    return types[known], bare[known], squares[known]


def _slopes(trial: _Trial, held_out: Errors) -> tuple[Slopes, np.ndarray, list[np.ndarray]]:
    """What `fit_slopes` finds, with the factors of all atoms frame by frame, 1 without a label."""
    features, types = np.concatenate(held_out.features), np.concatenate(held_out.types)
    sizes = [len(rows) for rows in held_out.features]
    deviations = trial.force_scales[types] * np.linalg.norm(features @ trial.root, axis=1)
    squares = (np.concatenate(held_out.forces) ** 2).mean(axis=1)
    known = np.isfinite(squares) & (deviations > 0)
    frames = np.repeat(np.arange(len(sizes)), sizes)[known]
    ratios = (np.sqrt(squares[known]) / deviations[known]) ** 2
    found, levels, inside = fit_slopes(features[known], types[known], ratios, frames, len(trial.force_scales))
    factors = np.ones(len(types))
    factors[known] = inside
    return found, levels, np.split(factors, np.cumsum(sizes)[:-1])


def _scores(trial: _Trial, held_out: Errors, factors: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """|error| over deviation: of energies, of the forces on atoms, and the largest of these in each frame."""
    energy, atoms, frames = [], [], []
    for k, features in enumerate(held_out.features):
        total = trial.energy_scale * np.linalg.norm(features.sum(axis=0) @ trial.root)
        if np.isfinite(held_out.energy[k]):
            energy.append(abs(held_out.energy[k]) / max(total, np.finfo(float).tiny))
        bare = np.linalg.norm(features @ trial.root, axis=1)
        deviation = trial.force_scales[held_out.types[k]] * factors[k] * bare
        deviation = np.maximum(deviation, np.finfo(float).tiny)
        ratio = np.linalg.norm(held_out.forces[k], axis=1) / deviation
        ratio = ratio[np.isfinite(ratio)]
        atoms.append(ratio)
        frames += [ratio.max()] if len(ratio) else []
    everything = np.concatenate(atoms) if atoms else np.zeros(0)
    return np.array(energy), everything, np.array(frames)


def _thinned(scores: np.ndarray) -> np.ndarray:
    """Ascending; at most MAX_SCORES of them, evenly spaced, the largest kept."""
    ordered = np.sort(scores)
    if len(ordered) <= MAX_SCORES:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, MAX_SCORES).round().astype(int)]
