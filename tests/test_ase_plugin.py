"""How ASE finds the calculator: plugin, entry point, configuration file."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest
from small_systems import small_atoms

import asenequip.ase_plugin
from asenequip import AllegroCalculator
from asenequip.ase_plugin import __ase_plugins__

plugin_module = pytest.importorskip("ase._4.plugins.plugin", reason="this ASE has no plugins yet")


def test_the_plugin_gives_the_calculator() -> None:
    (plugin,) = __ase_plugins__
    assert plugin.name == "allegro"
    assert plugin() is AllegroCalculator
    assert "Nat. Commun." in plugin.citation


def test_ase_collects_it() -> None:
    from ase._4.plugins.plugin_collection import PluginCollection

    collection = PluginCollection(__ase_plugins__)
    assert [p.name for p in collection.calculators] == ["allegro"]


def test_the_entry_point_names_the_module() -> None:
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).resolve().parent.parent / "setup.cfg")
    assert parser["options.entry_points"]["ase.plugins"].split() == ["asenequip", "=", asenequip.ase_plugin.__name__]


def test_finding_the_plugin_does_not_load_torch() -> None:
    code = "import sys, asenequip.ase_plugin; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# -- the section [asenequip] of ASE's configuration file --------------------------------------------------------------


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch):
    """Set the section for one test."""
    from ase.config import cfg

    def write(**values: str) -> None:
        parser = configparser.ConfigParser(interpolation=configparser.ExtendedInterpolation())
        parser["asenequip"] = values
        monkeypatch.setattr(cfg, "parser", parser)

    return write


def test_the_configured_model_is_used(section, small_artifact: Path) -> None:
    section(model=str(small_artifact), device="cpu", dtype="float64")
    calc = AllegroCalculator()
    assert calc.parameters["model"] == str(small_artifact.resolve())
    assert (calc.parameters["device"], calc.parameters["dtype"]) == ("cpu", "float64")
    explicit = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    assert calc.get_potential_energy(small_atoms()) == explicit.get_potential_energy(small_atoms())


def test_what_is_passed_goes_before_the_configuration(section, small_artifact: Path) -> None:
    section(model=str(small_artifact), device="cpu", dtype="float64")
    assert AllegroCalculator(dtype="float32").parameters["dtype"] == "float32"


def test_an_explicit_model_ignores_the_configuration(section, small_artifact: Path) -> None:
    section(model="/nowhere/model.asnq", dtype="float64")
    assert AllegroCalculator(small_artifact, device="cpu").parameters["dtype"] == "float32"


def test_the_home_folder_is_expanded(section, small_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(small_artifact.parent))
    section(model=f"~/{small_artifact.name}", dtype="float64", device="cpu")
    assert AllegroCalculator().parameters["model"] == str(small_artifact.resolve())


def test_no_model_anywhere_is_explained(section) -> None:
    section(device="cpu")
    with pytest.raises(ValueError, match=r"'model' parameter of AllegroCalculator must be .* Got nothing"):
        AllegroCalculator()


def test_an_unknown_key_is_named(section, small_artifact: Path) -> None:
    section(model=str(small_artifact), devise="cpu")
    with pytest.raises(ValueError, match="no key 'devise'"):
        AllegroCalculator()
