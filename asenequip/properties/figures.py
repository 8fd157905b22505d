"""Figures of properties, as PNG files that must be new; the numbers of each stand in a CSV file beside it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asenequip.files import write_new

if TYPE_CHECKING:
    from asenequip.properties.elasticity import ElasticTensor
    from asenequip.properties.equation_of_state import EquationOfState
    from asenequip.properties.quasiharmonic import Gruneisen, QuasiHarmonic
    from asenequip.properties.spectra import Bands, DensityOfStates, ThermalProperties


def new_axes(columns: int = 1, **grid: Any) -> tuple[Any, Any]:
    """A figure of its own and its axes, without pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * columns + 1.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, **grid)


def _write(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_new(path, buffer.getvalue())


def stress_figure(elastic: ElasticTensor, path: Path) -> None:
    """Stresses against the size of each strain, GPa."""
    names = ("xx", "yy", "zz", "yz", "xz", "xy")
    figure, axes = new_axes(len(elastic.directions), squeeze=False)
    for axis, direction, stresses in zip(axes[0], elastic.directions, elastic.stresses, strict=True):
        for name, values in zip(names, stresses.T, strict=True):
            axis.plot(elastic.strains, values, "o-", ms=3, label=name)
        axis.set(xlabel=f"strain {names[direction]}", ylabel="stress (GPa)")
    axes[0, -1].legend(fontsize="small")
    _write(figure, path)


def energy_volume_figure(state: EquationOfState, path: Path) -> None:
    """Energies and the fitted curve against the volume, both per atom."""
    figure, axis = new_axes()
    volumes = np.linspace(state.volumes.min(), state.volumes.max(), 200)
    axis.plot(state.volumes, state.energies, "o", label="calculated")
    axis.plot(volumes, state.energy_at(volumes), "-", label="Birch-Murnaghan")
    axis.set(xlabel="volume (Å$^3$/atom)", ylabel="energy (eV/atom)")
    axis.legend()
    _write(figure, path)


def band_figure(bands: Bands, density: DensityOfStates, path: Path) -> None:
    """Bands along the path and the density of states beside them, THz."""
    figure, (left, right) = new_axes(2, sharey=True, width_ratios=(3, 1))
    for distances, frequencies in zip(bands.distances, bands.frequencies, strict=True):
        left.plot(distances, frequencies, "-", color="C0", lw=1)
    ticks, labels = bands.ticks
    for tick in ticks:
        left.axvline(tick, color="0.7", lw=0.5)
    left.set_xticks(ticks, labels)
    low, high = (float(extreme(np.concatenate(bands.frequencies))) for extreme in (np.min, np.max))
    margin = 0.03 * (high - low)
    left.set(ylabel="frequency (THz)", xlim=(ticks[0], ticks[-1]), ylim=(min(low, 0.0) - margin, high + margin))
    left.axhline(0.0, color="0.7", lw=0.5)
    right.plot(density.density, density.frequencies, color="C0", lw=1)
    right.set(xlabel="states (1/THz)", xlim=(0.0, None))
    _write(figure, path)


def thermal_figure(thermal: ThermalProperties, path: Path) -> None:
    """Free energy, and entropy and heat capacity in units of k_B, against temperature."""
    from ase.units import kB

    figure, (left, right) = new_axes(2)
    left.plot(thermal.temperatures, thermal.free_energy)
    left.set(xlabel="temperature (K)", ylabel="free energy (eV per primitive cell)")
    right.plot(thermal.temperatures, thermal.entropy / kB, label="entropy")
    right.plot(thermal.temperatures, thermal.heat_capacity / kB, label="heat capacity at constant volume")
    right.set(xlabel="temperature (K)", ylabel="$k_B$ per primitive cell")
    right.legend(fontsize="small")
    _write(figure, path)


def quasiharmonic_figure(found: QuasiHarmonic, path: Path) -> None:
    """Volume and thermal expansion against temperature."""
    figure, (left, right) = new_axes(2)
    left.plot(found.temperatures, found.volumes)
    left.set(xlabel="temperature (K)", ylabel="volume (Å$^3$ per primitive cell)")
    right.plot(found.temperatures, 1e6 * found.expansion)
    right.set(xlabel="temperature (K)", ylabel="volume expansion (10$^{-6}$/K)")
    _write(figure, path)


def gruneisen_figure(found: Gruneisen, path: Path) -> None:
    """Gruneisen parameter of each mode of the mesh against its frequency."""
    figure, axis = new_axes()
    seen = np.isfinite(found.parameters)
    axis.plot(found.frequencies[seen], found.parameters[seen], ".", ms=3)
    axis.set(xlabel="frequency (THz)", ylabel="Grüneisen parameter")
    _write(figure, path)
