"""Settings: strict names, overrides, and what a change is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asenequip.train.cli import app
from asenequip.train.config import (
    Config,
    ConfigError,
    changed_settings,
    make_spec,
    parse_config,
)
from asenequip.train.settings_file import apply_overrides, load_config


@pytest.mark.parametrize(
    ("values", "wrong", "meant"),
    [
        ({"model": {"cutof": 5}}, "model.cutof", "cutoff"),
        ({"training": {"lerning_rate": 1e-3}}, "training.lerning_rate", "learning_rate"),
        ({"data": {"train": [{"path": "a", "wieght": 2}]}}, "data.train.0.wieght", "weight"),
        ({"modle": {}}, "modle", "model"),
        ({"training": {"cutoff": 5}}, "training.cutoff", "model.cutoff"),
    ],
)
def test_unknown_setting_is_named_with_the_nearest(values: dict, wrong: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"'{wrong}'.*Did you mean `{meant}`"):
        parse_config(values)


def test_every_wrong_value_is_named() -> None:
    with pytest.raises(ConfigError) as error:
        parse_config({"model": {"cutoff": -1}, "training": {"epochs": 0}})
    assert "'model.cutoff'" in str(error.value)
    assert "'training.epochs'" in str(error.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": {"train": [{"index": ":"}]}}, "'data.train.0.path' is missing"),
        ({"model": [1]}, "'model' is a section"),
        ({"data": {"train": {"path": "a", "index": "first"}}}, "'data.train.0.index' is wrong"),
    ],
)
def test_misplaced_value_is_named(values: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(values)


def test_files_of_one_name_are_told_apart_by_their_folders() -> None:
    files = ["600K/frames.xyz", "1200K/frames.xyz", "other.xyz", {"path": "x/frames.xyz", "name": "named"}]
    data = parse_config({"data": {"train": files}}).data
    assert [dataset.label for dataset in data.train] == ["600K/frames", "1200K/frames", "other", "named"]


def test_override_is_read_as_yaml() -> None:
    values = apply_overrides({"model": {"l_max": 1}}, ["model.l_max=3", "training.clip=null", "data.train=[a, b]"])
    config = parse_config(values)
    assert (config.model.l_max, config.training.clip) == (3, None)
    assert [dataset.path for dataset in config.data.train] == ["a", "b"]


def test_override_leaves_its_argument_alone() -> None:
    values = {"model": {"l_max": 1}}
    apply_overrides(values, ["model.l_max=3"])
    assert values == {"model": {"l_max": 1}}


@pytest.mark.parametrize("text", ["model.l_max", "=3"])
def test_malformed_override_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.name=value"):
        apply_overrides({}, [text])


def test_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="asenequip-train init"):
        load_config(tmp_path / "none.yaml")


def test_data_file_that_cannot_be_read_may_be_settings_by_another_name(tmp_path: Path) -> None:
    path = tmp_path / "settings.txt"
    path.write_text("model: {l_max: 1}")
    with pytest.raises(ConfigError, match=r"cannot be read by ASE(.|\n)*end in \.yaml"):
        load_config(path)


def test_changed_settings_names_exactly_the_changes() -> None:
    old, new = parse_config({}), parse_config({"training": {"epochs": 7}, "data": {"train": "a.xyz"}})
    assert set(changed_settings(old, new)) == {"training.epochs", "data.train"}


def test_digest_is_that_of_the_values() -> None:
    assert parse_config({}).digest == parse_config({"seed": 0}).digest
    assert parse_config({}).digest != parse_config({"seed": 1}).digest


def test_pair_cutoffs_are_centre_then_neighbour() -> None:
    model = parse_config({"model": {"cutoff": 5.0, "pair_cutoffs": {"Li-S": 4.0}}}).model
    spec = make_spec(model, ["Li", "S"], [1.0, 1.0])
    assert spec.cutoff_table() == ((5.0, 4.0), (5.0, 5.0))


@pytest.mark.parametrize("pair", [{"Li-Q": 4.0}, {"Li": 4.0}, {"Li-S": 6.0}])
def test_wrong_pair_cutoff_is_refused(pair: dict[str, float]) -> None:
    model = parse_config({"model": {"cutoff": 5.0, "pair_cutoffs": pair}}).model
    with pytest.raises(ConfigError, match="pair_cutoffs"):
        make_spec(model, ["Li", "S"], [1.0, 1.0])


def test_settings_survive_their_plain_form() -> None:
    config = parse_config({"model": {"pair": {"kind": "zbl"}, "energy_shifts": {"Cu": -1.5}}})
    assert Config.model_validate(config.model_dump()) == config


def test_schema_knows_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    app(["schema"], standalone_mode=False)
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["$defs"]["Model"]["properties"]["l_max"]["maximum"] == 4


@pytest.mark.parametrize(
    "name", ["3bpa", "aspirin", "li6ps5cl", "lipscl_joint", "lpscl", "mlearn_li", "mlearn_si", "nacl"]
)
def test_settings_of_the_examples_are_right(name: str) -> None:
    config = load_config(Path(__file__).parents[2] / "examples" / f"{name}.yaml")
    assert config.output == f"runs/{name}"
    assert config.data.train
