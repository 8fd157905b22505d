"""Training the members of a deep ensemble: one after another, or all in one batched pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from asenequip.artifact import save_artifact
from asenequip.errors import parameter_error
from asenequip.kernels.ops import use_backend
from asenequip.kernels.paths import layer_paths
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import assemble
from asenequip.model.track import chain_table, scalar_paths
from asenequip.train.batching import pack
from asenequip.train.config import Config, ConfigError, parse_config
from asenequip.train.data import Batch, collate
from asenequip.train.loss import LossFunction, residuals
from asenequip.train.pace import pace_of
from asenequip.train.prepare import prepare
from asenequip.train.run import fit
from asenequip.train.schedule import MovingAverage, Plateau, learning_rate
from asenequip.train.sources import load_data
from asenequip.train.table import tabulate


def train_ensemble(
    frames: Sequence[Atoms] | None,
    config: Config | Mapping[str, Any],
    members: int = 4,
    *,
    batched: bool = False,
) -> list[Path]:
    """Train several potentials that differ by their start weights.

    Parameters
    ----------
    frames : sequence of ase.Atoms, optional
        As for `asenequip.train.fit`; all members share one division into training and validation frames.
    config : Config or mapping
        Settings; member k has the start weights of ``seed + k`` and is written to ``output/member_k``.
    members : int
        2 or more.
    batched : bool
        False: one after another, each with its run directory, checkpoints and best epoch, and the frames in an order
        of its own. True: all in one pass on the same batches, with the averaged weights of the last epoch and no
        checkpoints; on plain torch operations, since `torch.func.vmap` cannot see into the compiled kernels.

    Returns
    -------
    list of Path
        For `asenequip.uncertainty.Ensemble`.
    """
    if not isinstance(members, int) or members < 2:
        raise parameter_error("members", "train_ensemble", "an integer >= 2", members)
    config = config if isinstance(config, Config) else parse_config(config)
    folder = Path(config.output)
    if batched:
        return _train_batched(frames, config, members, folder)
    paths = []
    for k in range(members):
        changes = {"seed": config.seed + k, "output": str(folder / f"member_{k}")}
        potential = fit(frames, config.model_copy(update=changes))
        if potential.path is not None:
            paths.append(potential.path)
    return paths


def _train_batched(frames: Sequence[Atoms] | None, config: Config, members: int, folder: Path) -> list[Path]:
    _check_one_pass(config)
    prepared = prepare(config, load_data(config.data, frames))
    config, samples = prepared.config, prepared.samples["train"]
    base = prepared.model
    models = [base, *(_sibling(base, config.seed + k) for k in range(1, members))]
    stacked = stack(models)
    loss = LossFunction(config.loss, base.spec.type_names)
    optimizer = _optimizer(list(stacked.values()), config)
    average = MovingAverage.of(stacked.values(), config.training.ema)  # type: ignore[arg-type]
    step, settings, pace = 0, config.training, pace_of(config, tabulate(samples, base.spec.num_types))
    for epoch in range(int(pace.epochs)):
        order = np.random.default_rng([config.seed, epoch]).permutation(len(samples)).tolist()
        edges = [sample.graph.num_edges for sample in samples]
        batches = pack(order, edges, pace.batch_size, settings.max_edges)
        for number, chosen in enumerate(batches):
            part = [samples[k] for k in chosen]
            batch = collate(part, prepared.statistics.offsets).to(base.device)
            progress = (epoch + number / len(batches)) / pace.epochs
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step, progress, Plateau())
            divisors = loss.divisors(part).to(base.device)
            gradients = member_gradients(base, stacked, loss, batch, divisors, loss.coefficients(progress))
            for name, parameter in stacked.items():
                parameter.grad = gradients[name]
            optimizer.step()
            average.update(stacked.values(), step)  # type: ignore[arg-type]
            step += 1
    final = average.weights if settings.ema > 0 else list(stacked.values())
    paths = []
    for k, model in enumerate(models):
        with torch.no_grad():
            own = dict(model.named_parameters())
            for name, values in zip(stacked, final, strict=True):
                own[name].copy_(values[k])
        record = {"training": {"member": k, "members": members, "config_sha256": config.digest}}
        paths.append(save_artifact(folder / f"member_{k}" / "model.asnq", model, provenance=record))
    return paths


def _check_one_pass(config: Config) -> None:
    """Refuse what stacked members cannot have."""
    settings = config.training
    found = {
        f"training.optimizer: {settings.optimizer}": settings.optimizer not in ("adam", "adamw", "amsgrad"),
        f"dtype: {config.dtype}": config.dtype not in ("float32", "float64"),
        f"training.minutes: {settings.minutes}": settings.minutes is not None,
        "own_shifts: true": any(dataset.own_shifts for dataset in config.data.train),
    }
    for setting, refused in found.items():
        if refused:
            raise ConfigError(
                f"Members that are trained in one pass cannot have '{setting}'.\n"
                "Leave it out, or train them one after another (batched=False)."
            )


def _optimizer(parameters: list[Tensor], config: Config) -> torch.optim.Optimizer:
    """One that works entry by entry, so that stacked members do not see one another."""
    settings = config.training
    values: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **values)
    return torch.optim.Adam(parameters, amsgrad=settings.optimizer == "amsgrad", **values)


def _sibling(base: Allegro, seed: int) -> Allegro:
    """A model with other start weights and the same scales, shifts and frozen parts."""
    model = Allegro(base.spec, seed=seed).to(base.dtype).to(base.device)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if name in ("scales", "shifts") or not parameter.requires_grad:
                own[name].copy_(parameter)
            own[name].requires_grad_(parameter.requires_grad)
    return model


def stack(models: Sequence[Allegro]) -> dict[str, Tensor]:
    """Trained parameters of models of one architecture, each (members, ...), as leaves."""
    named = [dict(model.named_parameters()) for model in models]
    return {
        name: torch.stack([parameters[name].detach() for parameters in named]).requires_grad_(True)
        for name, parameter in named[0].items()
        if parameter.requires_grad
    }


def member_gradients(
    base: Allegro,
    stacked: Mapping[str, Tensor],
    loss: LossFunction,
    batch: Batch,
    divisors: Tensor,
    coefficients: Tensor,
) -> dict[str, Tensor]:
    """Gradients of each member's loss on one batch with respect to its own parameters, in one vectorised pass.

    Parameters
    ----------
    base : Allegro
        Gives the architecture and all that is not trained.
    stacked : mapping of Tensor
        From `stack`.
    loss : LossFunction
    batch : Batch
    divisors, coefficients : (3,) float64
        See `LossFunction`.

    Returns
    -------
    dict of Tensor
        Of the shapes of ``stacked``.
    """
    graph = batch.graph
    vectors = graph.vectors().detach()
    factors = coefficients.to(divisors.device) / divisors.clamp(min=1e-300)

    def total(parameters: dict[str, Tensor]) -> Tensor:
        def energy(moved: Tensor) -> tuple[Tensor, Tensor]:
            energies = torch.func.functional_call(base, parameters, (graph, moved)).energies
            return energies.sum(), energies

        gradient, energies = torch.func.grad(energy, has_aux=True)(vectors)
        sums, _ = loss.terms(residuals(assemble(graph, vectors, gradient, energies), batch), batch)
        return (factors * sums).sum()

    for layer in layer_paths(base.spec.l_max, base.spec.num_layers, base.spec.parity):
        chain_table(layer, base.device)  # constants are made before the transforms, which have no storage to give
        chain_table(scalar_paths(layer), base.device)
    with use_backend("plain"):
        return torch.func.vmap(torch.func.grad(total))({name: value.detach() for name, value in stacked.items()})
