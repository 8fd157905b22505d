"""``asenequip cluster``: the environments of a trajectory's atoms, sorted into classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asenequip.cli.common import Debug, Device, Dtype, Index, Progress, open_calculator, table
from asenequip.interrupt import Interrupted, stop_on_signal
from asenequip.settings import calculator_defaults

if TYPE_CHECKING:
    from asenequip.calculator import AllegroCalculator
    from asenequip.cluster.report import ClusterReport


def cluster(
    trajectory: Annotated[Path, typer.Argument(help="Frames, in any format of ASE's.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.", show_default=False)],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            help="Potential whose latent features describe atoms; else that of ASE's configuration.",
            show_default=False,
        ),
    ] = None,
    soap: Annotated[
        bool, typer.Option("--soap", help="Describe atoms by SOAP (needs DScribe); with --clusters, by theirs.")
    ] = False,
    soap_cutoff: Annotated[float, typer.Option("--soap-cutoff", help="Radius of SOAP, Angstrom.")] = 5.0,
    clusters: Annotated[
        Path | None,
        typer.Option("--clusters", help="Apply the clusters.npz of an earlier run.", show_default=False),
    ] = None,
    z: Annotated[float, typer.Option("--z", help="Standard deviations a peak must rise above its saddles.")] = 1.65,
    species: Annotated[str, typer.Option("--species", help="Elements jointly or separately.")] = "jointly",
    window: Annotated[int, typer.Option("--window", help="Frames averaged over, an odd number.")] = 1,
    sample: Annotated[int, typer.Option("--sample", help="Environments the density is fitted on, at most.")] = 20_000,
    seed: Annotated[int, typer.Option("--seed", help="Of the sample.")] = 0,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Whether to draw figures.")] = True,
    index: Index = ":",
    device: Device = "auto",
    dtype: Dtype = "float64",
    debug: Debug = False,
) -> None:
    """Sort the environments of all atoms into classes, as peaks of their density.

    The folder gets the frames with each atom's class, density and halo, a table of the classes, a representative of
    each, the fitted clusters, and figures.
    """
    from asenequip.cluster import CallableDescriptor, cluster_file

    if soap and model is not None:
        raise ValueError("Atoms are described by --model or by --soap, not by both. Leave one of them out.")
    if not trajectory.exists():
        raise FileNotFoundError(f"There is no file '{trajectory}'. Check the path.")
    descriptor: Any = None
    if soap and clusters is None:
        from asenequip.cluster import SOAP

        descriptor = SOAP(cutoff=soap_cutoff)
    elif not soap:
        calculator = _describer(model, device, dtype)
        sha256 = calculator.parameters["sha256"]
        descriptor = CallableDescriptor(calculator.descriptors, name=f"potential {sha256}")
    options: dict[str, Any] = {"z": z, "species": species, "window": window, "sample": sample, "random_state": seed}
    with Progress("Frames", _passes(clusters) * _count(trajectory, index)) as progress, stop_on_signal() as stop:

        def watch(done: int) -> None:
            progress.show(done)
            if stop:
                raise Interrupted(_how_to_go_on(output))

        report = cluster_file(
            trajectory,
            output,
            descriptor=descriptor,
            clusters=clusters,
            index=index,
            figures=figures,
            watch=watch,
            **({} if clusters is not None else options),
        )
    typer.echo(_text(report))


def _describer(model: Path | None, device: str, dtype: str) -> AllegroCalculator:
    if model is None:
        try:
            calculator_defaults()
        except ValueError as error:
            raise ValueError(f"Say how atoms are described: --model and a potential, or --soap.\n{error}") from None
    return open_calculator(model, device, dtype)


def _passes(clusters: Path | None) -> int:
    """How often each frame is described: once to fit, once to label."""
    return 1 if clusters is not None else 2


def _count(trajectory: Path, index: str) -> int:
    from ase.io import iread

    return sum(1 for _ in iread(str(trajectory), index=index))


def _how_to_go_on(output: Path) -> str:
    fitted = output / "clusters.npz"
    if not fitted.exists():
        return "Stopped before the clusters were fitted; nothing was written. The same command starts again."
    return (
        f"Stopped. The fitted clusters are in '{fitted}'; the same command with --clusters {fitted} goes on from them."
    )


def _text(report: ClusterReport) -> str:
    lines: list[tuple[str, ...]] = [("class", "atoms", "share", "halo", "composition")]
    for row in report.rows:
        composition = " ".join(f"{symbol}:{count}" for symbol, count in row.composition.items())
        lines.append((str(row.cluster), str(row.size), f"{row.share:.1%}", f"{row.halo_share:.1%}", composition))
    files = "\n".join(f"  {path}" for path in report.files)
    return f"{report.n_atoms} environments in {report.n_frames} frames\n{table(lines)}\nWritten:\n{files}"
