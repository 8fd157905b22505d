"""The trainer's settings: one strict YAML file, each thing written once, unknown names refused with a suggestion."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from asenequip.model.spec import AllegroSpec, PairSpec
from asenequip.train.config_errors import flatten, sentence

Energy = Literal["eV", "meV", "Hartree", "Rydberg", "kcal/mol", "kJ/mol"]
Length = Literal["Angstrom", "Bohr", "nm"]
Pressure = Literal["energy/length^3", "eV/Angstrom^3", "GPa", "kbar"]
Fraction = Annotated[float, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Keys(_Strict):
    """Where the labels are: a name of ``atoms.info`` / ``atoms.arrays``, or one of the calculator's results."""

    energy: str | None = "energy"
    forces: str | None = "forces"
    stress: str | None = "stress"
    virial: str | None = Field(
        default=None, description="Virial -V*stress, energy units; used where a frame has no stress."
    )


class Units(_Strict):
    """Units of the labels; frames' positions are in Angstrom as ASE reads them."""

    energy: Energy = "eV"
    length: Length = "Angstrom"
    stress: Pressure = "energy/length^3"
    stress_sign: Literal[1, -1] = Field(default=1, description="1: ASE's sign (dE/dstrain / V); -1: pressure-like.")


class Dataset(_Strict):
    """One file or ASE database of labelled frames, or several under one name."""

    path: str = Field(description="Any file that ASE reads, an ASE database, or a pattern such as runs/*/OUTCAR.")
    index: str = Field(
        default=":", pattern=r"^-?\d*(:-?\d*){0,2}$", description="Frames taken of each file, as a Python slice."
    )
    name: str | None = Field(
        default=None, description="Name in logs and metrics; the file's name without endings if absent."
    )
    weight: PositiveFloat = Field(default=1.0, description="Weight of its frames in the loss.")
    per_epoch: PositiveFloat | None = Field(
        default=None,
        description="Part (< 1) or number of its training frames that is drawn anew for each epoch; all if absent.",
    )
    own_shifts: bool = Field(
        default=False, description="Its energies have a zero of their own: fit per-type shifts for it."
    )
    keys: Keys = Keys()
    units: Units = Units()

    @property
    def label(self) -> str:
        """Its name in metrics: ``name``, else the file's name without endings."""
        return self.name or Path(self.path).name.split(".")[0]


def _datasets(value: Any) -> Any:
    """A file, or a list of files and of settings, as settings; files of one name are told apart by their folders."""
    items = value if isinstance(value, (list, tuple)) else [value]
    items = [{"path": str(item)} if isinstance(item, (str, Path)) else item for item in items]
    unnamed = [Path(item["path"]) for item in items if _unnamed(item)]
    stems = Counter(path.name.split(".")[0] for path in dict.fromkeys(unnamed))
    for k, item in enumerate(items):
        if _unnamed(item):
            path = Path(item["path"])
            stem = path.name.split(".")[0]
            items[k] = {**item, "name": f"{path.parent.name}/{stem}"} if stems[stem] > 1 else item
    return items


def _unnamed(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("path"), str) and item.get("name") is None


Datasets = Annotated[list[Dataset], BeforeValidator(_datasets)]


class Split(_Strict):
    """How the frames of ``data.train`` are divided where ``data.valid`` or ``data.test`` name no files."""

    valid: Fraction = Field(default=0.1, description="Fraction (< 1) or number of frames.")
    test: Fraction = Field(default=0.1, description="Fraction (< 1) or number of frames.")
    method: Literal["random", "end", "key", "group"] = Field(
        default="random",
        description="random; end: last frames of each file (a trajectory); key: atoms.info[key] says "
        "train, valid or test; group: frames with one value of atoms.info[key] stay together.",
    )
    key: str = "split"
    seed: int = 0


class Data(_Strict):
    """Files, their labels and their division."""

    train: Datasets = []
    valid: Datasets = []
    test: Datasets = []
    split: Split = Split()
    max_frames: PositiveInt | None = Field(default=None, description="Use at most this many training frames.")
    shards: str | None = Field(
        default=None,
        description="Folder that `asenequip-train preprocess` wrote from these files; frames are then read from there.",
    )


class Pair(_Strict):
    """Pair potential; see `asenequip.model.spec.PairSpec`."""

    kind: Literal["zbl", "lj"] = "zbl"
    envelope_exponent: PositiveInt = 6
    style: Literal["lj", "lj_repulsive_only", "repulsive"] = "lj"
    exponent: PositiveFloat = 6.0
    sigma: PositiveFloat = 1.0
    epsilon: PositiveFloat = 1.0
    delta: float = 0.0
    trainable: list[Literal["sigma", "epsilon", "delta"]] = []


_Nonlinearity = Literal["silu", "mish", "gelu", "ssp", "tanh", "sigmoid", "softplus", "none"]


class Model(_Strict):
    """Hyperparameters; see `asenequip.model.spec.AllegroSpec`. Species and statistics come from the data."""

    cutoff: PositiveFloat = Field(default=5.0, description="Angstrom.")
    pair_cutoffs: dict[str, PositiveFloat] = Field(
        default={}, description="Shorter cutoffs, as {Li-S: 4.0}: centre-neighbour."
    )
    species: list[str] | None = Field(default=None, description="Chemical symbols; those of the data if absent.")
    l_max: Annotated[int, Field(ge=0, le=4)] = 2
    parity: bool = True
    num_layers: PositiveInt = 2
    num_scalar_features: PositiveInt = 32
    num_tensor_features: PositiveInt = 16
    radial: Literal["bessel", "spline"] = "bessel"
    num_bessels: PositiveInt = 8
    bessel_trainable: bool = False
    envelope_exponent: PositiveInt = 6
    num_splines: PositiveInt = 16
    spline_span: PositiveInt = 12
    radial_dim: PositiveInt | None = None
    two_body_depth: Annotated[int, Field(ge=0)] = 1
    two_body_width: PositiveInt = 64
    two_body_nonlinearity: _Nonlinearity = "silu"
    latent_depth: Annotated[int, Field(ge=0)] = 1
    latent_width: PositiveInt = 64
    latent_nonlinearity: _Nonlinearity = "silu"
    readout_depth: Annotated[int, Field(ge=0)] = 1
    readout_width: PositiveInt = 32
    readout_nonlinearity: _Nonlinearity = "silu"
    path_channel_coupling: bool = True
    individual_irrep_weights: bool = True
    forward_normalize: bool = True
    scales_trainable: bool = False
    shifts_trainable: bool = False
    pair: Pair | None = None
    energy_shifts: Literal["auto", "isolated", "least_squares", "keep"] | dict[str, float] = Field(
        default="auto",
        description="auto: isolated atoms where the data hold one of each species, else least squares; or eV.",
    )
    energy_scales: Literal["force_rms", "force_rms_per_type"] | dict[str, float] = "force_rms"


class Stage(_Strict):
    """Coefficients of the loss from some part of the training on; what is absent stays as it was."""

    at: Annotated[float, Field(ge=0, le=1)] = Field(description="Part of the training that is done.")
    energy: NonNegative | None = None
    forces: NonNegative | None = None
    stress: NonNegative | None = None


class Loss(_Strict):
    """Coefficients and form of the loss."""

    energy: NonNegative = Field(default=10.0, description="Weight of the energy per atom, residual in eV.")
    forces: NonNegative = Field(default=1.0, description="Weight of the force components, residual in eV/Angstrom.")
    stress: NonNegative = Field(default=1.0, description="Weight of the virial per atom, residual in eV.")
    stages: list[Stage] = Field(default=[], description="Other coefficients later in training, by ascending `at`.")
    change: Literal["step", "linear"] = Field(
        default="step", description="step: a stage's coefficients hold from `at` on; linear: they are reached at `at`."
    )
    kind: Literal["mse", "mae", "huber", "stratified_huber"] = "mse"
    delta: PositiveFloat = Field(
        default=0.05, description="Huber: where the square turns into a line, in units of the residual."
    )
    species_weights: dict[str, NonNegative] = Field(
        default={}, description="Weights of the forces on a species, 1 if absent."
    )

    @field_validator("stages")
    @classmethod
    def _ascending(cls, stages: list[Stage]) -> list[Stage]:
        if sorted(stages, key=lambda stage: stage.at) != stages:
            raise ValueError("stages must be ordered by `at`")
        return stages


class Training(_Strict):
    """Optimiser, schedule, length."""

    epochs: PositiveInt | None = Field(
        default=None, description="If absent: until `minutes` are over; without these as many as make 30,000 steps."
    )
    minutes: PositiveFloat | None = Field(
        default=None, description="Stop, learning rate fully decayed, after this time."
    )
    batch_size: PositiveInt | None = Field(
        default=None, description="Frames per step; as many as hold 50 atoms if absent."
    )
    max_edges: PositiveInt | None = Field(default=None, description="Fewer frames per step where they have more edges.")
    pad: bool = Field(
        default=False, description="Fill batches up to few fixed sizes, so that little is compiled; see `compile`."
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Processes that read and join batches ahead; 0: the training process does."
    )
    learning_rate: PositiveFloat = 0.02
    optimizer: Literal["adam", "adamw", "amsgrad", "muon", "schedule_free"] = Field(
        default="adam",
        description="muon: the matrices of the networks by Muon, everything else by AdamW; schedule_free: AdamW that "
        "needs no schedule and averages the weights itself (schedule and ema then have no effect).",
    )
    weight_decay: NonNegative = 0.0
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="As a part of learning_rate."
    )
    plateau_patience: PositiveInt = 20
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.99, description="Decay of the moving average of weights; 0: none."
    )
    polish: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Rounds of L-BFGS on all training frames at the end, ten iterations each."
    )
    freeze: list[str] = Field(default=[], description="Parts held fixed, such as two_body, track, readout.")
    clip: PositiveFloat | None = Field(default=None, description="Largest norm of the gradient.")
    early_stopping: PositiveInt | None = Field(default=None, description="Epochs without a better validation loss.")
    valid_every: PositiveInt | None = Field(
        default=None, description="Epochs between validations; as many as make 25 steps if absent."
    )
    compile: bool = Field(default=False, description="Compile the step (needs a C++ compiler or CUDA; takes a minute).")
    checkpoint_seconds: NonNegative = Field(default=20.0, description="Least time between two checkpoints.")


class Uncertainty(_Strict):
    """Last-layer uncertainty, fitted when training is done; see `asenequip.uncertainty`."""

    directions: Annotated[int, Field(ge=0)] = Field(
        default=4, description="Random combinations of each frame's forces that count; 0: energies only."
    )
    max_frames: PositiveInt = Field(default=500, description="Training frames that count, drawn at random.")


class Config(_Strict):
    """Everything a training run is made of."""

    data: Data = Data()
    model: Model = Model()
    loss: Loss = Loss()
    training: Training = Training()
    uncertainty: Uncertainty | None = Field(
        default=None, description="Fit one on the training frames, calibrated on the validation frames; {}: as usual."
    )
    start: str | None = Field(default=None, description="A model.asnq to go on from; new species are added to it.")
    output: str = Field(
        default="runs/potential", description="Run directory; a number is added where it exists already."
    )
    seed: int = Field(default=0, description="Start weights and order of the frames.")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1 ...")
    dtype: Literal["float32", "float64", "bfloat16", "tf32"] = Field(
        default="float32",
        description="Precision of the network. bfloat16 and tf32 (CUDA): float32, but matrix products in training "
        "round their operands.",
    )
    threads: PositiveInt | None = Field(default=None, description="CPU threads; the fastest by trial if absent.")
    loggers: list[Literal["tensorboard", "wandb"]] = Field(
        default=[], description="Metrics go there too; each needs the package of that name."
    )
    licence: str = Field(default="not stated", description="Licence of the potential, for its model card.")

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved settings."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


class ConfigError(ValueError):
    """The settings are wrong; the text says where and what to write instead."""


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validate plain settings.

    Parameters
    ----------
    values : mapping
        As read from YAML.

    Raises
    ------
    ConfigError
        Naming every wrong setting, with the nearest known name where one is unknown.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(sentence(item, Config) for item in error.errors())) from None


def changed_settings(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, as {"section.name": (old, new)}."""
    first, second = flatten(old.model_dump()), flatten(new.model_dump())
    return {k: (first.get(k), second.get(k)) for k in {**first, **second} if first.get(k) != second.get(k)}


def make_spec(model: Model, species: Sequence[str], neighbors: Sequence[float]) -> AllegroSpec:
    """The model's hyperparameters, given the species and the mean number of neighbours of each.

    Raises
    ------
    ConfigError
        For a pair cutoff that is malformed, of unknown species, or above the cutoff.
    """
    values = model.model_dump(exclude={"pair_cutoffs", "species", "pair", "energy_shifts", "energy_scales"})
    table = [[model.cutoff] * len(species) for _ in species]
    for pair, cutoff in model.pair_cutoffs.items():
        names = pair.split("-")
        if len(names) != 2 or not set(names) <= set(species) or cutoff > model.cutoff:
            raise ConfigError(
                f"model.pair_cutoffs: '{pair}: {cutoff:g}' must be CENTRE-NEIGHBOUR of {', '.join(species)} and at "
                f"most the cutoff {model.cutoff:g}."
            )
        table[species.index(names[0])][species.index(names[1])] = cutoff
    pair_spec = (
        PairSpec(**{**model.pair.model_dump(), "trainable": tuple(model.pair.trainable)}) if model.pair else None
    )
    try:
        return AllegroSpec(
            type_names=tuple(species),
            avg_num_neighbors=tuple(neighbors),
            pair_cutoffs=tuple(map(tuple, table)) if model.pair_cutoffs else None,
            pair=pair_spec,
            **values,
        )
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
