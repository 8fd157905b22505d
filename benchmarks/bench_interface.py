"""Do the error bars of the interface analyses hold the truth, and how long does a million atoms take?

    python benchmarks/bench_interface.py --coverage      # 100 synthetic repeats of each analysis
    python benchmarks/bench_interface.py --size 1000000  # seconds per 100 frames and peak memory

Every synthetic system has a known answer: random walks of known tensor, growth of a known law, ideal mixtures of known
profile, lattice gases of known order, layers of known drift. Results go to benchmarks/results/interface_*.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units

from asenequip import __version__
from asenequip.interface.conductivity import fit_arrhenius, nernst_einstein
from asenequip.interface.creep import Creep
from asenequip.interface.diffusion import Diffusion
from asenequip.interface.growth import fit_growth
from asenequip.interface.profiles import Profiles, find_fronts
from asenequip.interface.reactions import Populations
from asenequip.interface.snapshots import by_layer, stream
from asenequip.interface.statistics import Estimate, block_average
from asenequip.interface.structure import Radial, short_range_order

HERE = Path(__file__).resolve().parent
LEVEL = 0.95
Answers = dict[str, tuple[Estimate, object]]
"""Name of a quantity: its estimate, and the truth."""


# -- synthetic systems ------------------------------------------------------------------------------------------------


def correlated(rng: np.random.Generator, n: int, time_constant: float, width: float) -> np.ndarray:
    """A stationary Gaussian series whose correlation falls as exp(-t / time_constant)."""
    memory = np.exp(-1 / time_constant)
    noise = rng.normal(size=n) * width * np.sqrt(1 - memory**2)
    noise[0] = rng.normal() * width
    for k in range(1, n):
        noise[k] += memory * noise[k - 1]
    return noise


def walk(
    rng: np.random.Generator, tensor: np.ndarray, atoms: int, frames: int, step: float, length: float = 12.0
) -> Iterator[Atoms]:
    """Independent random walkers of a diffusion tensor (Angstrom^2/ps), wrapped into a skewed periodic cell."""
    cell = length * np.array([[1.0, 0.0, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, 1.0]])
    root = np.linalg.cholesky(2 * tensor * step)
    positions = rng.random((atoms, 3)) @ cell
    for k in range(frames):
        frame = Atoms(f"Li{atoms}", positions=positions, cell=cell, pbc=True, info={"time_ps": k * step})
        frame.wrap()
        yield frame
        positions = positions + rng.normal(size=(atoms, 3)) @ root.T


def mixture(
    rng: np.random.Generator, atoms: int, frames: int, length: float, faces: tuple[float, float], width: float
) -> Iterator[Atoms]:
    """An ideal gas, drawn anew in every frame; the array ``inside`` is 1 in a layer with soft faces, 0 elsewhere."""
    for k in range(frames):
        z = rng.random(atoms) * length
        positions = np.column_stack([rng.random((atoms, 2)) * 20, z])
        frame = Atoms(f"Li{atoms}", positions, cell=[20, 20, length], pbc=True, info={"time_ps": float(k)})
        frame.set_array("inside", (rng.random(atoms) < layer_share(z, length, faces, width)).astype(np.int64))
        yield frame


def layer_share(z: np.ndarray, length: float, faces: tuple[float, float], width: float) -> np.ndarray:
    """Share of atoms inside at a height: the profile of `mixture`, periodic."""
    share = np.zeros_like(z)
    for image in (-length, 0.0, length):
        share += 0.5 * (np.tanh((z - faces[0] - image) / width) - np.tanh((z - faces[1] - image) / width))
    return share


def lattice_gas(rng: np.random.Generator, share: float, frames: int, size: int = 6) -> Iterator[Atoms]:
    """A simple cubic lattice of 3.1 Angstrom with a share of Cl, the rest Li, on sites drawn anew in every frame."""
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 3.1
    chlorine = round(share * len(grid))
    symbols = ["Cl"] * chlorine + ["Li"] * (len(grid) - chlorine)
    for k in range(frames):
        yield Atoms(
            symbols, positions=rng.permutation(grid) + 0.5, cell=[3.1 * size] * 3, pbc=True, info={"time_ps": float(k)}
        )


# -- one repeat of each analysis --------------------------------------------------------------------------------------

TENSOR = np.array([[0.9, 0.2, 0.0], [0.2, 0.5, -0.1], [0.0, -0.1, 0.2]])
"""Angstrom^2/ps."""


def run(analysis: object, frames: Iterator[Atoms], **options: object) -> object:
    """Feed frames to an analysis and give its result."""
    for snapshot in stream(frames, **options):  # type: ignore[arg-type]
        analysis.add(snapshot)  # type: ignore[attr-defined]
    return analysis.result()  # type: ignore[attr-defined]


def series_case(rng: np.random.Generator) -> Answers:
    """Mean of a correlated series."""
    return {"mean of a correlated series": (block_average(correlated(rng, 2000, 8.0, 1.0)), 0.0)}


def diffusion_case(rng: np.random.Generator) -> Answers:
    """Tensor, its mean, its parts and the exponent of a random walk; the conductivity follows."""
    found = run(Diffusion(20), walk(rng, TENSOR, 30, 441, 0.05), reference="none")
    truth = [TENSOR[a, b] for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))]
    isotropic = np.trace(TENSOR) / 3
    volume, charge = 1728.0, 1.602176634e-19
    siemens = 30 / (volume * 1e-30) * charge**2 * isotropic * 1e-8 / (units._k * 600.0) / 100
    answers: Answers = {
        f"diffusion tensor {name}": (found.tensor[0, k], truth[k])
        for k, name in enumerate(("xx", "yy", "zz", "yz", "xz", "xy"))
    }
    answers["diffusion, mean"] = (found.isotropic[0], isotropic)
    answers["diffusion along the layers"] = (found.along[0], (TENSOR[0, 0] + TENSOR[1, 1]) / 2)
    answers["diffusion across the layers"] = (found.across[0], TENSOR[2, 2])
    answers["exponent of the time"] = (found.exponent[0], 1.0)
    answers["mean-squared displacement at the tenth lag"] = (found.msd[0, 9], 6 * isotropic * 0.5)
    answers["conductivity"] = (nernst_einstein(found.isotropic[0], 30, volume, 600.0), siemens)
    return answers


def layer_case(rng: np.random.Generator) -> Answers:
    """Diffusion along two layers that differ, no atom leaving its own."""

    def frames() -> Iterator[Atoms]:
        z = rng.random(60) * 20
        root = np.sqrt(2 * 0.05 * np.where(z < 10, 0.8, 0.2))[:, None]
        flat = rng.random((60, 2)) * 10
        for k in range(441):
            yield Atoms("Li60", np.column_stack([flat, z]), cell=[10, 10, 20], pbc=True, info={"time_ps": 0.05 * k})
            flat = flat + root * rng.normal(size=(60, 2))

    grouping = by_layer(["Li"], [0.0, 0.5], ["lower", "upper"])
    found = run(Diffusion(20, grouping=grouping), frames(), reference="none")
    return {
        f"diffusion in the {name} layer": (found.along[k], truth)
        for k, (name, truth) in enumerate((("lower", 0.8), ("upper", 0.2)))
    }


def arrhenius_case(rng: np.random.Generator) -> Answers:
    """Activation energy from walks at three temperatures."""
    energy, prefactor, kelvin = 0.3, 40.0, (600.0, 800.0, 1000.0)
    estimates = []
    for temperature in kelvin:
        speed = prefactor * np.exp(-energy / (units.kB * temperature))
        found = run(Diffusion(10), walk(rng, speed * np.eye(3), 15, 161, 0.05), reference="none")
        estimates.append(found.isotropic[0])
    fit = fit_arrhenius(kelvin, estimates)
    return {
        "activation energy": (fit.activation_energy, energy),
        "logarithm of the prefactor": (fit.log_prefactor, np.log(prefactor)),
    }


def growth_case(rng: np.random.Generator) -> Answers:
    """Constants of two laws of growth, under correlated noise."""
    times = np.linspace(0.0, 100.0, 500)
    answers: Answers = {}
    for law, clean, truth in (
        ("linear", 4.0 + 0.1 * times, (4.0, 0.1)),
        ("parabolic", np.sqrt(16.0 + 2 * 1.5 * times), (4.0, 1.5)),
    ):
        fits = fit_growth(times, clean + correlated(rng, len(times), 4.0, 0.5))
        fit = next(entry for entry in fits if entry.law == law)
        answers[f"{law} growth, start"] = (fit.parameters[0], truth[0])
        answers[f"{law} growth, rate"] = (fit.parameters[1], truth[1])
    return answers


def profile_case(rng: np.random.Generator) -> Answers:
    """Density, composition, faces and their widths of an ideal mixture."""
    length, faces, width, atoms = 40.0, (11.3, 27.9), 2.0, 400
    analysis = Profiles(40, grouping=lambda snapshot: (snapshot.atoms.arrays["inside"], ["outside", "inside"]))
    profile = run(analysis, mixture(rng, atoms, 160, length, faces, width), reference="none")
    fine = (np.arange(4000) + 0.5) * length / 4000
    share = layer_share(fine, length, faces, width).reshape(40, 100).mean(axis=1)
    density = atoms / (400 * length)
    fronts = find_fronts(profile, ["inside"])
    return {
        "density profile": (profile.density[1], density * share),
        "composition profile": (profile.share()[1], share),
        "position of a face": (fronts.faces[0], faces[0]),
        "width of a face": (fronts.widths, width * np.log(9)),
        "thickness of a layer": (fronts.thickness_mean, faces[1] - faces[0]),
    }


def lattice_case(rng: np.random.Generator) -> Answers:
    """Coordination, radial distribution and short-range order of a random lattice gas."""
    radial = Radial(4.0, bins=16, centres=60, seed=int(rng.integers(2**31)))
    orders, share, sites = [], 0.4, 6**3
    for snapshot in stream(lattice_gas(rng, share, 80)):
        radial.add(snapshot)
        orders.append(short_range_order(snapshot.atoms, "Li", "Cl", 3.5))
    found = radial.result()
    row = found.pairs.index(("Li", "Cl"))
    shell = 4 / 3 * np.pi * (3.25**3 - 3.0**3)
    others = sites / (sites - 1)  # the centre itself is not among its possible neighbours
    return {
        "coordination number": (found.coordination("Li", "Cl", 3.5), 6 * round(share * sites) / (sites - 1)),
        "radial distribution, first shell": (found.g[row, 12], 6 * 3.1**3 / shell * others),
        "short-range order": (block_average(np.array(orders)), 1 - others),
    }


def population_case(rng: np.random.Generator) -> Answers:
    """Atoms that change between two classes at random: the mean population of each."""
    state = (rng.random(100) < 0.3).astype(np.int64)
    populations = Populations(lambda snapshot: (snapshot.atoms.arrays["state"], ["off", "on"]))

    def frames() -> Iterator[Atoms]:
        for k in range(400):
            atoms = Atoms("Li100", np.zeros((100, 3)), cell=[5, 5, 5], pbc=True, info={"time_ps": float(k)})
            atoms.set_array("state", state)
            yield atoms
            up, down = rng.random((2, 100))
            state[:] = np.where(state == 1, down >= 0.14, up < 0.06)  # stationary share 0.06 / (0.06 + 0.14)

    found = run(populations, frames(), reference="none")
    return {"population of a class": (block_average(found.counts)[1], 30.0)}


def creep_case(rng: np.random.Generator) -> Answers:
    """Layers that drift at a known speed and shear at a known rate, with vibrations and wandering."""
    heights = np.repeat(np.arange(8) * 2.5 + 1.0, 12)
    rate = np.array([0.02, 0.0, -0.004])

    def frames() -> Iterator[Atoms]:
        wander = np.zeros((96, 3))
        start = np.column_stack([rng.random((96, 2)) * 12, heights])
        for k in range(401):
            shift = (start[:, 2:] - heights.mean()) * rate * 0.05 * k
            positions = start + shift + wander + rng.normal(scale=0.15, size=(96, 3)) * (k > 0)
            yield Atoms("Li96", positions, cell=[12, 12, 22], pbc=True, info={"time_ps": 0.05 * k})
            wander = wander + rng.normal(scale=0.02, size=(96, 3))

    found = run(Creep(width=2.5, block=40), frames(), reference="none")
    drift = (found.heights - heights.mean())[:, None] * rate
    return {
        "drift of a layer": (found.velocity, drift),
        "shear rate": (found.strain_rate[0], rate[0]),
        "stretch rate": (found.strain_rate[2], rate[2]),
    }


CASES: dict[str, Callable[[np.random.Generator], Answers]] = {
    "series": series_case,
    "diffusion": diffusion_case,
    "layers": layer_case,
    "arrhenius": arrhenius_case,
    "growth": growth_case,
    "profiles": profile_case,
    "lattice": lattice_case,
    "populations": population_case,
    "creep": creep_case,
}


def coverage(case: str, repeats: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """How often the intervals of a case hold the truth.

    Returns
    -------
    dict
        For each quantity: ``covered``, the share of 95 percent intervals that hold the truth, and ``calibration``, the
        root mean square of the standard errors over the scatter of the values. Bars that are too wide would cover
        always, and have a calibration above one.
    """
    gathered: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for repeat in range(repeats):
        for name, (estimate, truth) in CASES[case](np.random.default_rng([seed, repeat])).items():
            covered = np.asarray(estimate.covers(truth, LEVEL), float)
            gathered.setdefault(name, []).append((covered, np.asarray(estimate.value), np.asarray(estimate.error)))
    table = {}
    for name, rows in gathered.items():
        covered, values, errors = (np.array(column) for column in zip(*rows, strict=True))
        scatter = np.sqrt(np.mean(values.var(axis=0, ddof=1)))
        table[name] = {
            "covered": round(float(covered.mean()), 4),
            "calibration": round(float(np.sqrt(np.mean(errors**2)) / scatter), 3),
        }
    return table


# -- size -------------------------------------------------------------------------------------------------------------


def measure_size(atoms: int, frames: int) -> dict[str, float]:
    """Seconds for all analyses of a trajectory of Li6PS5Cl, and the memory before and after, scaled to 100 frames."""
    from ase.io.trajectory import Trajectory

    from asenequip.interface import analyse, make_crystal, occupy

    rng = np.random.default_rng(0)
    repeat = max(1, round((atoms / 52) ** (1 / 3)))
    start = occupy(make_crystal("Li6PS5Cl"), rng).repeat(repeat)
    start.arrays = {k: v for k, v in start.arrays.items() if k in ("numbers", "positions")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.traj"
        with Trajectory(path, "w") as file:
            for k in range(frames):
                start.info["time_ps"] = 0.1 * k
                file.write(start)
                start.positions += rng.normal(scale=0.02, size=start.positions.shape)
        memory = []
        begun, busy = time.perf_counter(), time.process_time()
        analyse(path, watch=lambda done: memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        seconds, busy = time.perf_counter() - begun, time.process_time() - busy
    return {
        "atoms": len(start),
        "frames": frames,
        "seconds": round(seconds, 1),
        "seconds_per_100_frames": round(100 * seconds / frames, 1),
        "processor_seconds_per_100_frames": round(100 * busy / frames, 1),
        "peak_mib_at_half": round(memory[len(memory) // 2]),
        "peak_mib_at_end": round(memory[-1]),
    }


def save(name: str, table: dict[str, object]) -> None:
    """Write a result with what it was measured on."""
    machine = {"asenequip": __version__, "numpy": np.__version__, "python": platform.python_version()}
    machine |= {"processor": platform.machine(), "cores": str(os.cpu_count())}
    path = HERE / "results" / f"interface_{name}.json"
    path.write_text(json.dumps({"machine": machine, **table}, indent=2) + "\n")
    print(f"Written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--size", type=int, help="atoms")
    parser.add_argument("--frames", type=int, default=100)
    options = parser.parse_args()
    if options.coverage:
        table: dict[str, dict[str, float]] = {}
        for case in options.cases:
            begun = time.perf_counter()
            found = coverage(case, options.repeats)
            table |= found
            for name, row in found.items():
                print(f"{name:45s} covered {row['covered']:7.1%}  calibration {row['calibration']:.2f}")
            print(f"  {case}: {time.perf_counter() - begun:.1f} s")
        path = HERE / "results" / "interface_coverage.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if known.get("repeats") == options.repeats:  # the cases may be run one by one
            table = known["quantities"] | table
        save("coverage", {"level": LEVEL, "repeats": options.repeats, "quantities": table})
    if options.size:
        row = measure_size(options.size, options.frames)
        print(row)
        save("size", row)


if __name__ == "__main__":
    main()
