"""A campaign: explore, select, label, judge, train, again and again, unattended; restartable at any step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asenequip.active.cutouts import cut_out
from asenequip.active.exploration import bare, explore
from asenequip.active.judge import judge
from asenequip.active.labellers import Labeller, make_labeller
from asenequip.active.labelling import Labelled, dask_client, label_frames, slurm_client
from asenequip.active.page import write_page
from asenequip.active.rounds import STEPS, CampaignError, Round, held, read_frames, read_json, write_frames, write_json
from asenequip.active.selection import select_frames
from asenequip.active.settings import Campaign, changed_settings
from asenequip.active.store import LabelStore, structure_key
from asenequip.active.training import train_potential
from asenequip.artifact import load_artifact
from asenequip.calculator import AllegroCalculator
from asenequip.interrupt import Interrupted
from asenequip.train.config import ConfigError
from asenequip.uncertainty import frame_deviation

_VALID_EVERY = 5
"""Of the first frames each so-manieth is held out from training, until there are fresh ones."""


@dataclass(frozen=True)
class Outcome:
    """How a campaign ended.

    Attributes
    ----------
    model : Path
        The last potential.
    reason : str
        "the error is small enough", "all rounds are done", or "all labels are used".
    rounds : int
    labels : int
    """

    model: Path
    reason: str
    rounds: int
    labels: int


def run_campaign(campaign: Campaign, watch: Callable[[str], None] | None = None) -> Outcome:
    """Run a campaign, or go on with one from where it stopped, was killed, or failed.

    Everything is in ``campaign.output``: settings, ``labels.db``, a folder per round, and ``index.html``, the page that
    shows the state. A step is done when its last file is there, and files appear whole or not at all; so whatever ends
    the process, the next call repeats at most one step, and in it neither labels (they are in the database) nor epochs
    (they are in checkpoints).

    Parameters
    ----------
    campaign : Campaign
        From `load_campaign`.
    watch : callable, optional
        Gets a line at each beginning and end.

    Returns
    -------
    Outcome

    Raises
    ------
    asenequip.train.config.ConfigError
        If the settings differ from those that the campaign began with, but for those that may.
    """
    folder = Path(campaign.output)
    with held(folder):
        return _Driver(folder, campaign, watch or (lambda line: None)).run()


class _Driver:
    """The steps of a campaign, each of which reads the files of the earlier ones and writes its own."""

    def __init__(self, folder: Path, campaign: Campaign, watch: Callable[[str], None]) -> None:
        self.folder, self.campaign, self.watch = folder, campaign, watch
        self.labeller: Labeller = make_labeller(campaign.label.calculator, **campaign.label.options)
        _check(campaign)
        _remember(folder / "campaign.json", campaign)
        self.store = LabelStore(folder / "labels.db")

    def run(self) -> Outcome:
        number = 0
        while True:
            present = Round(self.folder, number)
            for step in STEPS:
                if not present.done(step):
                    self.watch(f"round {number}: {step}")
                    self._do(step, present)
                    self.watch(f"round {number}: {step} done")
                    write_page(self.folder)
                reason = self._reason(present) if step == "judge" else None
                if reason is not None:
                    return self._end(number - 1, reason)
            if number >= self.campaign.stop.rounds:
                return self._end(number, "all rounds are done")
            number += 1

    def _do(self, step: str, present: Round) -> None:
        """One step; where a signal ends it, say how the campaign goes on."""
        try:
            getattr(self, f"_{step}")(present)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(
                f"Stopped in round {present.number}, at '{step}'; everything before is in '{self.folder}'.\n"
                "The same command goes on from there."
            ) from None

    def _end(self, number: int, reason: str) -> Outcome:
        last = Round(self.folder, number)
        found = Outcome(last.model, reason, number, len(self.store.frames()))
        values = {"model": str(found.model.relative_to(self.folder)), "reason": reason, "labels": found.labels}
        write_json(self.folder / "outcome.json", values)
        write_page(self.folder)
        return found

    def _reason(self, present: Round) -> str | None:
        """Why the campaign ends after the judgement of a round, or None."""
        if present.number == 0:
            return None
        stop, bound = self.campaign.stop, read_json(present.judged)["bound"]
        if bound is not None and bound <= stop.force_error:
            return "the error is small enough"
        if stop.labels is not None and len(self.store.frames()) >= stop.labels:
            return "all labels are used"
        return None

    # -- the steps ------------------------------------------------------------------------------------------------

    def _explore(self, present: Round) -> None:
        campaign = self.campaign
        if present.number == 0:
            frames = [bare(atoms) for atoms in _read(campaign.start.frames, campaign.start.index)]
            if len(frames) < 2:
                raise ConfigError(f"start.frames must hold at least two structures. Got {len(frames)} instead.")
        else:
            settings = campaign.explore
            starts = _read(settings.starts or campaign.start.frames, ":" if settings.starts else campaign.start.index)
            seed = campaign.seed * 100_003 + present.number
            frames = explore(starts, self._calculator(present), settings, seed=seed, watch=self.watch)
        if not frames:
            raise ConfigError("Exploration gave no candidates.\nSet explore.dynamics.runs or explore.rattle.count.")
        write_frames(present.candidates, frames)

    def _select(self, present: Round) -> None:
        frames, settings = read_frames(present.candidates), self.campaign.select
        if present.number == 0:
            for k, atoms in enumerate(frames):
                atoms.info["role"] = (
                    "fresh" if k % _VALID_EVERY == _VALID_EVERY - 1 or k == len(frames) - 1 else "train"
                )
            write_frames(present.selected, frames)
            return
        calculator = self._calculator(present)
        rng = np.random.default_rng([self.campaign.seed, present.number])
        order = rng.permutation(len(frames)).tolist()
        chosen, rest = order[: settings.fresh], order[settings.fresh :]
        for k in chosen:
            frames[k].info |= {"role": "fresh", "reason": "random"}
        remaining = [frames[k] for k in sorted(rest)]
        found = select_frames(
            remaining,
            settings.count,
            calculator.descriptors,
            method=settings.method,
            uncertainty=lambda atoms: frame_deviation(calculator.evaluator, atoms),
            known=[bare(atoms) for atoms in self._training_frames(present.number - 1)["train"]],
            seed=present.number,
        )
        for k, reason in zip(found.indices, found.reasons, strict=True):
            remaining[k].info |= {"role": "train", "reason": reason}
        picked = [frames[k] for k in chosen] + [remaining[k] for k in found.indices]
        write_frames(present.selected, [self._cut(atoms, calculator) for atoms in picked])

    def _cut(self, atoms: Atoms, calculator: AllegroCalculator) -> Atoms:
        """A sphere about the most uncertain atom of a frame that is too large to label."""
        settings = self.campaign.select
        if settings.radius is None or len(atoms) <= settings.max_atoms:
            return atoms
        center = int(np.argmax(calculator.uncertainty(atoms).forces))
        cutoff = calculator.evaluator.model.spec.cutoff
        found = cut_out(atoms, center, settings.radius, cutoff=cutoff).atoms
        found.info |= {k: v for k, v in atoms.info.items() if k in ("origin", "role", "reason")}
        return found

    def _label(self, present: Round) -> None:
        frames = read_frames(present.selected)
        found = self._labelled(frames)
        identity = self.labeller.identity
        keys: dict[str, list[str]] = {"train": [], "fresh": []}
        good = {atoms.info["structure"] for atoms in found.frames}
        for atoms in frames:
            key = structure_key(atoms, identity)
            if key in good:
                keys[atoms.info["role"]].append(key)
        failures = [{"structure": f.atoms.info["structure"], "reason": f.reason} for f in found.failures]
        if not keys["train"] and present.number == 0:
            raise CampaignError(
                f"Not one of the {len(frames)} first frames could be labelled; the first reason: "
                f"{found.failures[0].detail if found.failures else 'none'}.\nLook at label.calculator and its options."
            )
        write_json(present.labelled, {**keys, "failures": failures})

    def _labelled(self, frames: list[Atoms]) -> Labelled:
        settings = self.campaign.label
        client = None
        if settings.cluster == "dask":
            client = dask_client(settings.workers, **settings.cluster_options)
        elif settings.cluster == "slurm":
            client = slurm_client(settings.workers, **settings.cluster_options)
        try:
            return label_frames(
                frames,
                self.labeller,
                self.store,
                workers=settings.workers,
                threads=settings.threads,
                timeout=settings.timeout,
                retries=settings.retries,
                max_force=settings.max_force,
                client=client,
                watch=lambda done, total: self.watch(f"labelled {done} of {total}"),
            )
        finally:
            if client is not None:
                cluster = client.cluster
                client.close()
                if cluster is not None:
                    cluster.close()

    def _judge(self, present: Round) -> None:
        keys = read_json(present.labelled)["fresh"] if present.number else []
        frames = [atoms for key in keys if (atoms := self.store.get(key)) is not None]
        values: dict[str, Any] = {"frames": 0, "bound": None}
        if frames:
            values = judge(self._calculator(present), frames, self.campaign.stop.confidence)
        write_json(present.judged, {**values, "labels": len(self.store.frames())})

    def _train(self, present: Round) -> None:
        campaign = self.campaign
        if present.number == 0 and campaign.start.model is not None:
            target = present.folder / "model.asnq"
            if not target.exists():
                from asenequip.files import write_new

                write_new(target, Path(campaign.start.model).read_bytes())
        else:
            frames = self._training_frames(present.number)
            start = None
            if campaign.fine_tune and present.number > 0:
                start = str(Round(self.folder, present.number - 1).model)
            target = train_potential(present.folder, frames["train"], frames["fresh"], campaign, start)
        write_json(present.trained, {"model": str(target.relative_to(self.folder))})

    # -- what they share --------------------------------------------------------------------------------------------

    def _calculator(self, present: Round) -> AllegroCalculator:
        """Of the potential that the round before has trained."""
        return AllegroCalculator(Round(self.folder, present.number - 1).model, device=self.campaign.device)

    def _training_frames(self, last: int) -> dict[str, list[Atoms]]:
        """Labelled frames of all rounds up to one, by role."""
        found: dict[str, list[Atoms]] = {"train": [], "fresh": []}
        seen: set[str] = set()
        for number in range(last + 1):
            keys = read_json(Round(self.folder, number).labelled)
            for role in found:
                new = [key for key in keys[role] if key not in seen]
                seen.update(new)
                found[role] += [atoms for key in new if (atoms := self.store.get(key)) is not None]
        return found


def _read(path: str, index: str) -> list[Atoms]:
    from ase.io import read

    if not Path(path).exists():
        raise ConfigError(f"There is no file '{path}'. Correct start.frames or explore.starts.")
    try:
        found = read(path, index=index)
    except Exception as error:
        raise ConfigError(f"'{path}' cannot be read by ASE at index '{index}': {error}") from error
    return found if isinstance(found, list) else [found]


def _check(campaign: Campaign) -> None:
    """Refuse what would only be missed after hours of labels: further starts, and what a given potential lacks.

    Raises
    ------
    ConfigError
    """
    starts, path = campaign.explore.starts, campaign.start.model
    if starts is not None and not Path(starts).exists():
        raise ConfigError(f"There is no file '{starts}'. Correct explore.starts.")
    if path is None:
        cutoff = campaign.training().model.cutoff
    elif not Path(path).exists():
        raise ConfigError(f"There is no file '{path}'. Correct start.model.")
    else:
        potential = load_artifact(path, check=False)
        cutoff = potential.spec.cutoff
        needing = campaign.asks_uncertainty
        if potential.uncertainty is None and needing:
            raise ConfigError(
                f"The potential of start.model carries no uncertainty, which {needing[0]} asks for.\n"
                "Add one with asenequip.uncertainty.add_uncertainty, or leave start.model out."
            )
    radius = campaign.select.radius
    if radius is not None and cutoff is not None and radius < cutoff:
        raise ConfigError(
            f"select.radius must be at least the potential's cutoff, {cutoff:g} A. Got {radius:g} instead.\n"
            "A smaller sphere holds no whole environment."
        )


def _remember(path: Path, campaign: Campaign) -> None:
    """Write the settings of a new campaign; of an earlier one, refuse those that would make it another.

    Raises
    ------
    ConfigError
    """
    now = campaign.model_dump(mode="json")
    if path.exists():
        changed = changed_settings(read_json(path), now)
        if changed:
            raise ConfigError(
                f"A campaign cannot go on with another {', '.join(changed)}.\n"
                "Put the old values back, or give the new campaign another output."
            )
    write_json(path, now)
