"""From a trajectory file to labelled frames, a table, representatives and figures."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from asenequip.cluster._checks import check
from asenequip.cluster.estimator import EnvironmentClusters
from asenequip.cluster.phases import ClusterRow, Tally, environment_of, representatives
from asenequip.files import refuse_existing

__all__ = ["ClusterReport", "cluster_file"]

NAMES = ("clustered.extxyz", "clusters.csv", "representatives.extxyz", "clusters.npz")
FIGURES = ("projection.png", "dendrogram.png", "dimension.png", "population.png")


@dataclass(frozen=True)
class ClusterReport:
    """What `cluster_file` found and wrote.

    Attributes
    ----------
    rows : list of ClusterRow
    n_frames, n_atoms : int
        Frames and environments labelled.
    files : list of Path
        What was written.
    model : EnvironmentClusters
    """

    rows: list[ClusterRow]
    n_frames: int
    n_atoms: int
    files: list[Path]
    model: EnvironmentClusters


def cluster_file(
    trajectory: str | Path,
    output: str | Path,
    *,
    descriptor: Any = None,
    clusters: str | Path | EnvironmentClusters | None = None,
    index: str = ":",
    figures: bool = True,
    radius: float = 5.0,
    watch: Callable[[int], None] | None = None,
    **options: Any,
) -> ClusterReport:
    """Cluster the environments of a trajectory and write everything about them to a folder.

    The trajectory is read frame by frame, once to fit (unless fitted clusters are given), once to label and once for
    the representatives, so it may be larger than memory.

    Parameters
    ----------
    trajectory : path
        Any file that ASE reads.
    output : path
        Folder to write to, made if needed; none of the files written may exist. The fitted clusters are written
        when they are there, everything else when all of it is complete.
    descriptor : callable, optional
        `descriptor(atoms)` gives one row per atom; needed unless saved clusters know theirs.
    clusters : path or EnvironmentClusters, optional
        Fitted clusters to apply instead of fitting.
    index : str
        ASE's slice of frames.
    figures : bool
        Whether to draw projection, dendrogram, dimension against scale and population against time.
    radius : float
        Radius of the representatives' surroundings, Angstrom.
    watch : callable, optional
        `watch(done)` is called after each frame, with those described for the fit and those labelled counted
        together. What it raises ends the work; fitted clusters stay in the folder.
    **options
        Parameters of `EnvironmentClusters`, where it is fitted.

    Returns
    -------
    ClusterReport

    Raises
    ------
    FileExistsError
        If a file to be written exists.
    """
    from ase.io import iread

    folder, fits = Path(output), clusters is None
    names = [*(NAMES if fits else NAMES[:2]), *(FIGURES if figures else ())]
    refuse_existing(*(folder / name for name in names))
    done = 0

    def frames() -> Iterator[Atoms]:
        nonlocal done
        for atoms in iread(str(trajectory), index=index):
            yield atoms
            done += 1
            if watch is not None:
                watch(done)

    model = _model(clusters, descriptor, frames, options)
    folder.mkdir(parents=True, exist_ok=True)
    if fits:
        model.save(folder / "clusters.npz")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as name:
        beside = Path(name)
        tally = _label(model, frames(), beside / "clustered.extxyz")
        rows, population = tally.rows(representatives(model)), tally.population()
        _write_table(beside / "clusters.csv", rows)
        if fits:  # else the representatives belong to another trajectory
            shown = iread(str(trajectory), index=index)
            _write_representatives(beside / "representatives.extxyz", shown, rows, radius)
        if figures:
            from asenequip.cluster.figures import draw

            draw(model, population, beside)
        for path in beside.iterdir():
            os.rename(path, folder / path.name)
    return ClusterReport(rows, len(population), int(population.sum()), [folder / name for name in names], model)


def _model(
    clusters: str | Path | EnvironmentClusters | None,
    descriptor: Any,
    frames: Callable[[], Iterator[Atoms]],
    options: dict[str, Any],
) -> EnvironmentClusters:
    """Give the clusters to apply: those given, or fitted to the frames."""
    if isinstance(clusters, EnvironmentClusters):
        return clusters
    if clusters is not None:
        return EnvironmentClusters.load(clusters, descriptor)
    check(
        callable(descriptor),
        "descriptor",
        "cluster_file",
        "a callable descriptor(atoms) -> (n_atoms, n_features)",
        descriptor,
        "Give a descriptor, or fitted clusters.",
    )
    return EnvironmentClusters(descriptor, **options).fit(frames())


def _label(model: EnvironmentClusters, frames: Iterator[Atoms], path: Path) -> Tally:
    """Write the labelled frames and count what is in them."""
    from ase.io import write

    tally = Tally(model.n_clusters_)
    for atoms in model.stream(frames):
        tally.add(atoms)
        write(path, atoms, format="extxyz", append=True)
    return tally


def _write_table(path: Path, rows: list[ClusterRow]) -> None:
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["cluster", "size", "share", "composition", "halo_share", "mean_log_density", "frame", "atom"])
        for row in rows:
            text = " ".join(f"{symbol}:{count}" for symbol, count in row.composition.items())
            numbers = [f"{v:.6g}" for v in (row.halo_share, row.mean_log_density)]
            writer.writerow([row.cluster, row.size, f"{row.share:.6g}", text, *numbers, row.frame, row.atom])


def _write_representatives(path: Path, frames: Iterator[Atoms], rows: list[ClusterRow], radius: float) -> None:
    from ase.io import write

    wanted: dict[int, list[ClusterRow]] = {}
    for row in rows:
        wanted.setdefault(row.frame, []).append(row)
    found: dict[int, Atoms] = {}
    for index, atoms in enumerate(frames):
        for row in wanted.get(index, []):
            cut = environment_of(atoms, row.atom, radius)
            cut.info.update(cluster=row.cluster, frame=row.frame, atom=row.atom, share=row.share)
            found[row.cluster] = cut
    write(path, [found[one] for one in sorted(found)], format="extxyz")
