"""From a trajectory file to labelled frames, a table, representatives and figures."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from asenequip.cluster._checks import check
from asenequip.cluster.estimator import EnvironmentClusters
from asenequip.cluster.phases import ClusterRow, Tally, environment_of, representatives

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
        In the order written.
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
        Folder to write to, made if needed; none of the files written may exist.
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
        together. What it raises ends the work; fitted clusters and the frames labelled so far stay in the folder.
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
    from ase.io import iread, write

    folder = Path(output)
    taken = [str(folder / n) for n in (*NAMES, *(FIGURES if figures else ())) if (folder / n).exists()]
    if taken:
        raise FileExistsError(f"'{taken[0]}' exists and is not overwritten.\nGive another output folder.")

    done = 0

    def frames() -> Iterator[Atoms]:
        nonlocal done
        for atoms in iread(str(trajectory), index=index):
            yield atoms
            done += 1
            if watch is not None:
                watch(done)

    if isinstance(clusters, EnvironmentClusters):
        model = clusters
    elif clusters is not None:
        model = EnvironmentClusters.load(clusters, descriptor)
    else:
        check(
            callable(descriptor),
            "descriptor",
            "cluster_file",
            "a callable descriptor(atoms) -> (n_atoms, n_features)",
            descriptor,
            "Give a descriptor, or fitted clusters.",
        )
        model = EnvironmentClusters(descriptor, **options).fit(frames())
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in NAMES]
    if clusters is None:
        model.save(files[3])
    tally = Tally(model.n_clusters_)
    for atoms in model.stream(frames()):
        tally.add(atoms)
        write(files[0], atoms, format="extxyz", append=True)
    rows = tally.rows(representatives(model))
    _write_table(files[1], rows)
    if clusters is None:
        _write_representatives(files[2], iread(str(trajectory), index=index), rows, radius)
    else:
        files = files[:2]  # the representatives belong to another trajectory
    population = tally.population()
    if figures:
        from asenequip.cluster.figures import draw

        files += draw(model, population, folder)
    return ClusterReport(rows, len(population), int(population.sum()), files, model)


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
