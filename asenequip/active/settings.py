"""Settings of a campaign: one strict YAML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from asenequip.active.selection import UNSURE
from asenequip.train.config import Config, ConfigError, parse_config
from asenequip.train.config_errors import sentence
from asenequip.train.settings_file import read_settings

Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Start(_Strict):
    """What a campaign begins with."""

    frames: str = Field(description="Structures, any format ASE reads; labelled by the campaign's labeller.")
    index: str = ":"
    model: str | None = Field(
        default=None, description="A model.asnq to go on from; else one is trained on the frames."
    )


class Label(_Strict):
    """Who labels, where, and how long it may take."""

    calculator: str = Field(description="emt, tblite:GFN1-xTB, espresso ..., or package.module:factory.")
    options: dict[str, Any] = {}
    workers: PositiveInt = 1
    threads: PositiveInt = 1
    timeout: PositiveFloat | None = Field(default=None, description="Seconds per structure.")
    retries: Count = 1
    max_force: PositiveFloat | None = Field(default=100.0, description="eV/A; labels beyond are set apart.")
    cluster: Literal["processes", "dask", "slurm"] = "processes"
    cluster_options: dict[str, Any] = Field(default={}, description="Of dask's LocalCluster or SLURMCluster.")


class Dynamics(_Strict):
    """Molecular dynamics with the present potential, one start after another, through a ramp."""

    runs: Count = 2
    temperatures: list[PositiveFloat] = Field(default=[300.0, 600.0, 1200.0], description="K, one after another.")
    pressures: list[float] | None = Field(default=None, description="GPa, one per temperature; none: fixed cell.")
    steps: PositiveInt = Field(default=500, description="At each temperature.")
    timestep: PositiveFloat = Field(default=2.0, description="fs.")
    interval: PositiveInt = Field(default=25, description="Steps between two candidates.")
    bias: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="Energy -bias * (deviation of the energy) is added: leads to where it is large."
    )

    @model_validator(mode="after")
    def _one_pressure_each(self) -> Dynamics:
        if self.pressures is not None and len(self.pressures) != len(self.temperatures):
            raise ValueError("pressures must be as many as temperatures")
        return self


class Rattle(_Strict):
    """Random displacements and strains of the starts."""

    count: Count = 0
    amplitude: PositiveFloat = Field(default=0.1, description="A, standard deviation.")
    strain: Annotated[float, Field(ge=0)] = Field(default=0.03, description="Standard deviation of each component.")


class Surfaces(_Strict):
    """Slabs cut from the starts that are periodic in three directions."""

    count: Count = 0
    max_miller: PositiveInt = 2
    layers: PositiveInt = 3
    vacuum: PositiveFloat = Field(default=8.0, description="A, on either side.")
    amplitude: Annotated[float, Field(ge=0)] = 0.05


class Random(_Strict):
    """Random structures of the starts' compositions and volumes."""

    count: Count = 0
    stretch: tuple[PositiveFloat, PositiveFloat] = Field(default=(0.9, 1.2), description="Of the volume.")
    separation: PositiveFloat = Field(default=0.8, description="Least distance, in sums of covalent radii.")


class Explore(_Strict):
    """Where candidates come from."""

    starts: str | None = Field(default=None, description="Structures; those of start.frames if absent.")
    dynamics: Dynamics = Dynamics()
    rattle: Rattle = Rattle()
    surfaces: Surfaces = Surfaces()
    random: Random = Random()
    guard: PositiveFloat | None = Field(default=None, description="eV/A: dynamics stops at a larger force deviation.")


class Select(_Strict):
    """How many candidates are labelled in each round."""

    count: Count = 10
    fresh: Count = Field(default=5, description="Further candidates at random, which judge the potential.")
    method: Literal["mixed", "uncertain", "diverse", "novel", "sparse", "random"] = "mixed"
    radius: PositiveFloat | None = Field(
        default=None, description="A: of larger frames a sphere about the most uncertain atom is labelled."
    )
    max_atoms: PositiveInt = Field(default=200, description="Frames above are cut, where radius is set.")


class Stop(_Strict):
    """When a campaign is done."""

    force_error: PositiveFloat = Field(default=0.05, description="eV/A: bound of the force rmse of a fresh frame.")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.8, description="With which the bound holds.")
    rounds: PositiveInt = 10
    labels: PositiveInt | None = None


class Campaign(_Strict):
    """Everything a campaign is made of."""

    start: Start
    label: Label
    explore: Explore = Explore()
    select: Select = Select()
    train: dict[str, Any] = Field(default={}, description="Settings of asenequip-train, without data and output.")
    fine_tune: bool = Field(default=True, description="Go on from the last potential in place of random weights.")
    stop: Stop = Stop()
    output: str = "campaign"
    seed: int = 0
    device: str = "auto"

    @model_validator(mode="after")
    def _can_stop(self) -> Campaign:
        least = math.ceil(self.stop.confidence / (1 - self.stop.confidence) - 1e-9)
        if self.select.fresh < least:
            raise ValueError(f"select.fresh must be at least {least} for stop.confidence {self.stop.confidence:g}")
        for name in ("data", "output", "start"):
            if name in self.train:
                raise ValueError(f"train.{name} is set by the campaign; leave it out")
        if self.train.get("uncertainty", {}) is None and self.asks_uncertainty:
            raise ValueError(f"train.uncertainty must not be null: {self.asks_uncertainty[0]} asks for it")
        return self

    @property
    def asks_uncertainty(self) -> list[str]:
        """Settings that ask for the uncertainty of the potential."""
        wishes = {
            f"select.method: {self.select.method}": self.select.method in UNSURE,
            "select.radius": self.select.radius is not None,
            "explore.guard": self.explore.guard is not None,
            "explore.dynamics.bias": self.explore.dynamics.bias > 0,
        }
        return [name for name, wished in wishes.items() if wished]

    def training(self, **changes: Any) -> Config:
        """Settings of a training run of this campaign."""
        values = {"uncertainty": {}, "device": self.device, "seed": self.seed, **self.train, **changes}
        return parse_config(values)


FREE = (
    "stop.",
    "label.workers",
    "label.threads",
    "label.timeout",
    "label.retries",
    "label.cluster",
    "device",
    "output",
)
"""Settings that may differ when a campaign goes on."""


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any], section: str = "") -> list[str]:
    """Names, as "section.name", of settings that differ and may not."""
    names = []
    for name in sorted({**old, **new}):
        before, after, place = old.get(name), new.get(name), f"{section}{name}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            names += changed_settings(before, after, f"{place}.")
        elif before != after and not place.startswith(FREE):
            names.append(place)
    return names


def parse_campaign(values: Mapping[str, Any]) -> Campaign:
    """Validate plain settings, those of the training included.

    Raises
    ------
    ConfigError
        Naming every wrong setting.
    """
    try:
        campaign = Campaign.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(sentence(item, Campaign) for item in error.errors())) from None
    try:
        campaign.training()
    except ConfigError as error:
        raise ConfigError(f"train: {error}") from None
    return campaign


def load_campaign(path: str | Path, overrides: Sequence[str] = ()) -> Campaign:
    """Read a YAML file, apply overrides such as ``stop.rounds=3``, and validate; paths are relative to the file.

    Raises
    ------
    ConfigError
    """
    campaign = parse_campaign(read_settings(path, overrides, "Check the path, or start from examples/campaign.yaml."))
    here = Path(path).parent

    def placed(name: str | None) -> str | None:
        return None if name is None else str(here / name)

    start = campaign.start.model_copy(
        update={"frames": placed(campaign.start.frames), "model": placed(campaign.start.model)}
    )
    explore = campaign.explore.model_copy(update={"starts": placed(campaign.explore.starts)})
    changes = {"start": start, "explore": explore, "output": placed(campaign.output)}
    return campaign.model_copy(update=changes)
