"""From crystals to the page: stages that go on, one pass over a trajectory, tables, report, command line."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.io import read, write
from ase.io.trajectory import Trajectory
from numpy.testing import assert_allclose, assert_array_equal
from typer.testing import CliRunner

from asenequip.cli import app
from asenequip.interface import (
    Choices,
    Side,
    Stage,
    analyse,
    build_interface,
    by_cluster,
    render,
    run_stages,
    summarise,
    usual_stages,
    write_tables,
)
from asenequip.interrupt import Interrupted


@pytest.fixture(scope="module")
def start() -> Atoms:
    sides = (Side(crystal, thickness=14.0) for crystal in ("Cu", "Ni"))
    return build_interface(*sides, max_area=60, repeat=(2, 2))


@pytest.fixture(scope="module")
def trajectory(start, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_stages(start, EMT(), usual_stages(600, production=120, heat=20, anneal=0, interval=2), folder)
    return folder / "production.traj"


CHOICES = Choices(
    references=("Cu", "Ni"), carriers={"Cu": 1.0}, structure_every=20, layer=3.0, bonds=[("Cu", "Ni", 2.8, 3.2)]
)


@pytest.fixture(scope="module")
def summary(trajectory) -> dict:
    return summarise(analyse(trajectory, choices=CHOICES), {"potential": "EMT"})


@pytest.fixture(scope="module")
def page(summary) -> str:
    return render(summary)


# -- stages -----------------------------------------------------------------------------------------------------------


def test_stages_follow_one_another_and_are_not_run_again(start, tmp_path):
    stages = [Stage("one", 4, 300.0, {"interval": 2}), Stage("two", 4, 600.0, {"interval": 2})]
    last = run_stages(start, EMT(), stages, tmp_path)
    frames = read(tmp_path / "two.traj", ":")
    assert_allclose(frames[0].positions, read(tmp_path / "one.traj", "-1").positions)
    assert_array_equal(frames[-1].get_tags(), start.get_tags())
    again = run_stages(start, EMT(), stages, tmp_path)
    assert_array_equal(again.positions, last.positions)
    assert len(read(tmp_path / "two.traj", ":")) == len(frames)


def test_a_stage_that_was_stopped_goes_on_exactly(start, tmp_path):
    stages = [Stage("one", 12, 300.0, {"interval": 2})]
    whole = run_stages(start, EMT(), stages, tmp_path / "whole")

    def stop(name, row):
        if row["step"] == 6:
            raise Interrupted("stopped here")

    with pytest.raises(Interrupted):
        run_stages(start, EMT(), stages, tmp_path / "parts", watch=stop)
    parts = run_stages(start, EMT(), stages, tmp_path / "parts")
    assert_array_equal(whole.positions, parts.positions)


def test_other_settings_or_atoms_than_a_folder_began_with_are_refused(start, tmp_path):
    run_stages(start, EMT(), [Stage("one", 2, 300.0, {"timestep": 1.0})], tmp_path)
    with pytest.raises(ValueError, match=r"begun with a temperature of 300\.0, not of 600\.0"):
        run_stages(start, EMT(), [Stage("one", 4, 600.0)], tmp_path)
    with pytest.raises(ValueError, match=r"begun with a timestep of 1\.0, not of 2\.0"):
        run_stages(start, EMT(), [Stage("one", 4, 300.0, {"timestep": 2.0})], tmp_path)
    with pytest.raises(ValueError, match="begun with Cu64Ni64, not with Cu64Ni63"):
        run_stages(start[:-1], EMT(), [Stage("one", 4, 300.0)], tmp_path)


# -- the pass ---------------------------------------------------------------------------------------------------------


def test_everything_is_found_in_one_pass(summary):
    assert summary["provenance"]["frames"] == 61
    assert {phase["group"]: phase["crystal"] for phase in summary["phases"]} == {"Cu": "Cu", "Ni": "Ni"}
    assert summary["layers"]["names"] == [
        f"Cu, {name}" for name in ("lower interface", "electrolyte", "upper interface", "electrode")
    ]
    assert summary["creep"]["atoms"]
    assert set(summary["fronts"]) == {"electrode", "electrolyte"}
    assert summary["provenance"]["built"]["electrode"].startswith("Cu")


def test_limits_of_a_short_trajectory_are_told(summary):
    text = "\n".join(summary["warnings"])
    assert "ps long" in text
    assert "atoms: both interfaces see each other" in text


def test_the_format_of_the_file_does_not_matter(trajectory, tmp_path):
    frames = read(trajectory, ":16")
    write(tmp_path / "same.extxyz", frames)
    one = analyse(frames, choices=CHOICES).species.density.value
    two = analyse(tmp_path / "same.extxyz", choices=CHOICES).species.density.value
    assert_allclose(one, two, atol=1e-6)


def test_memory_does_not_grow_with_the_frames(start, tmp_path):
    import gc
    import tracemalloc

    peaks, atoms = [], start.repeat((4, 4, 1))
    for frames in (8, 12, 48):  # the first pass fills what is kept for all that follow
        path = tmp_path / f"{frames}.traj"
        with Trajectory(path, "w") as file:
            for k in range(frames):
                atoms.info["time_ps"] = float(k)
                file.write(atoms)
        gc.collect()
        tracemalloc.start()
        analyse(path, choices=Choices(references=(), carriers={"Cu": 1.0}, lags=3, structure_every=12, bins=20))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.15 * peaks[1]


def test_clusters_of_environments_can_be_the_classes(trajectory, tmp_path):
    frames = read(trajectory, ":12")
    for frame in frames:
        frame.set_array("cluster", (frame.symbols == "Ni").astype(int))
    write(tmp_path / "clustered.extxyz", frames)
    sides = {"electrode": ["soft"], "electrolyte": ["hard"]}
    choices = Choices(classes=by_cluster(["soft", "hard"]), references=("Cu", "Ni"), lags=3, **sides)
    found = analyse(tmp_path / "clustered.extxyz", choices=choices)
    assert found.populations.names == ["soft", "hard"]
    assert [phase.crystal for phase in found.phases] == ["Cu", "Ni"]
    assert found.thickness is not None
    assert found.thickness.min() > 0


def test_too_few_frames_are_refused(trajectory):
    with pytest.raises(ValueError, match="The 'frames' parameter of analyse must be at least 8 frames"):
        analyse(trajectory, index=":5")


# -- tables and page --------------------------------------------------------------------------------------------------


def test_tables_are_numbers_and_are_not_overwritten(summary, tmp_path):
    paths = write_tables(summary, tmp_path)
    assert json.loads((tmp_path / "analysis.json").read_text()) == json.loads(json.dumps(summary))
    table = np.genfromtxt(tmp_path / "diffusion.csv", delimiter=",", skip_header=1, usecols=(1, 2, 3))
    assert_allclose(table[:, 1], summary["diffusion"]["isotropic"]["value"])
    tables = ("profile_species", "creep", "radial", "phases", "fronts", "bonds", "conductivity", "order", "thickness")
    assert {f"{name}.csv" for name in tables} <= {path.name for path in paths}
    fronts = np.genfromtxt(tmp_path / "fronts.csv", delimiter=",", skip_header=1)
    assert_allclose(fronts[:, 3], summary["fronts"]["electrolyte"]["lower"])
    order = np.genfromtxt(tmp_path / "order.csv", delimiter=",", skip_header=1, usecols=(1, 2))
    assert_allclose(order, summary["order"]["order"]["value"])
    with pytest.raises(FileExistsError):
        write_tables(summary, tmp_path)


def test_the_page_is_whole_in_itself(page):
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:)", page)
    assert "<script" not in page
    figures = re.findall(r'data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(figures) >= 7
    assert all(b"</svg>" in base64.b64decode(figure) for figure in figures)


def test_text_of_files_cannot_become_markup(summary):
    assert "<b>" not in render({**summary, "warnings": []}, title="<b>x</b>").split("<body>")[1].split("</h1>")[0]


@pytest.fixture
def browser(tmp_path):
    """Chromium by its own driver, everything it says and asks for recorded."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update"),
        *(f"user-data-dir={tmp_path / 'profile'}", "window-size=1100,1500"),
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield session
    session.quit()


def test_a_browser_shows_all_figures_asks_for_nothing_and_has_no_complaint(browser, page, tmp_path):
    path = tmp_path / "study.html"
    path.write_text(page)
    browser.get("about:blank")
    browser.get_log("performance")  # what the browser did by itself
    browser.get(path.as_uri())
    count = "return Array.from(document.images).filter(i => i.complete && i.naturalWidth > 100).length"
    assert browser.execute_script(count) == page.count("<img ") >= 7
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []
    assert browser.find_element("tag name", "h1").text == "Interface study"


# -- command line -----------------------------------------------------------------------------------------------------


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["interface", *(str(word) for word in words)])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def test_the_four_verbs_from_crystals_to_the_page(tmp_path):
    with_sides = ("--electrode", "Cu", "--electrolyte", "Ni", "--max-area", 60)
    run("build", "-o", tmp_path / "start.extxyz", *with_sides, "--repeat", "2,2")
    model = files("asenequip.data") / "emt.asnq"
    stages = ("--heat", 4, "--anneal", 0, "--interval", 1, "--device", "cpu")
    run("run", tmp_path / "start.extxyz", "-o", tmp_path / "run", "-m", model, "-n", 12, *stages)
    run("run", tmp_path / "start.extxyz", "-o", tmp_path / "run", "-m", model, "-n", 16, *stages)
    frames = tmp_path / "run" / "production.traj"
    assert len(read(frames, ":")) == 17
    run("analyse", frames, "-o", tmp_path / "tables", "--references", "Cu,Ni", "--carriers", "Cu:1")
    run("report", tmp_path / "tables", "-o", tmp_path / "page.html", "--title", "Cu | Ni")
    assert "<h1>Cu | Ni</h1>" in (tmp_path / "page.html").read_text()


def test_errors_are_one_sentence(tmp_path):
    text = run("build", "-o", tmp_path / "x.xyz", "--electrolyte", "Unobtainium", code=2)
    assert "must be one of" in text
    assert "Traceback" not in text
    assert "There is no file" in run("report", tmp_path, "-o", tmp_path / "p.html", code=2)


def test_crystals_and_slabs_come_from_files_of_any_name(tmp_path):
    write(tmp_path / "POSCAR", bulk("Al", cubic=True))
    write(tmp_path / "slab.cif", fcc111("Ni", (1, 1, 5), vacuum=8.0, periodic=True))
    sides = ("--electrode", tmp_path / "POSCAR", "--electrolyte", tmp_path / "slab.cif", "--electrolyte-plane", "0,0,1")
    run("build", "-o", tmp_path / "start.extxyz", *sides, "--max-area", 100, "--max-misfit", 0.1)
    built = read(tmp_path / "start.extxyz")
    assert {name: set(built.symbols[built.get_tags() == tag]) for tag, name in ((1, "Al"), (2, "Ni"))} == {
        "Al": {"Al"},
        "Ni": {"Ni"},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--electrolyte", "missing.cif"), "There is no file 'missing.cif'"),
        (("--electrode-plane", "1.5,0,0"), "--electrode-plane"),
        (("--repeat", "2"), "--repeat"),
        (("--exchange", "1,3"), "an integer, an integer, a number"),
    ],
)
def test_wrong_words_of_build_are_named(words, message, tmp_path):
    assert message in run("build", "-o", tmp_path / "x.xyz", *words, code=2)


def test_frames_without_tags_times_and_velocities_are_analysed(start, trajectory, tmp_path):
    frames = [Atoms(a.symbols, a.positions, cell=a.cell, pbc=True) for a in read(trajectory, ":")]
    write(tmp_path / "plain.xyz", frames, format="extxyz")
    write(tmp_path / "start.extxyz", start)
    write(tmp_path / "Ni.cif", bulk("Ni", cubic=True))
    assert "do not say their time" in run("analyse", tmp_path / "plain.xyz", "-o", tmp_path / "no", code=2)
    known = ("--interval", 0.004, "--start", tmp_path / "start.extxyz", "-T", 600, "--carriers", "Cu")
    crystals = ("--references", f"Cu,{tmp_path / 'Ni.cif'}", "--bonds", "Cu-Ni:2.8:3.2")
    run("analyse", tmp_path / "plain.xyz", "-o", tmp_path / "tables", *known, *crystals, "--layer", 3)
    found = json.loads((tmp_path / "tables" / "analysis.json").read_text())
    expected = summarise(analyse(trajectory, choices=replace(CHOICES, structure_every=10)))
    assert_allclose(found["diffusion"]["isotropic"]["value"], expected["diffusion"]["isotropic"]["value"], rtol=1e-4)
    assert found["layers"]["names"] == expected["layers"]["names"]
    assert [entry["group"] for entry in found["conductivity"]] == ["Cu, electrolyte"]
    assert {phase["crystal"] for phase in found["phases"]} <= {"Cu", "Ni", ""}
    assert found["bonds"]["Cu-Ni"]["bonds"][0] > 0


def test_clusters_are_classes_on_the_command_line(trajectory, tmp_path):
    frames = read(trajectory, ":12")
    for frame in frames:
        frame.set_array("cluster", (frame.symbols == "Ni").astype(int))
    write(tmp_path / "clustered.extxyz", frames)
    sides = ("--electrode-classes", "soft", "--electrolyte-classes", "hard", "--lags", 3)
    run("analyse", tmp_path / "clustered.extxyz", "-o", tmp_path / "tables", "--clusters", "soft,hard", *sides)
    found = json.loads((tmp_path / "tables" / "analysis.json").read_text())
    assert found["populations"]["names"] == ["soft", "hard"]
    assert found["thickness"] is not None


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    """As it stands there, but for a system that effective-medium theory knows, and fewer steps."""
    text = (Path(__file__).parents[2] / "docs" / "interphase.md").read_text()
    study, *others = (block.split("```")[0] for block in text.split("```python\n")[1:])
    smaller = {
        'Side("Li", thickness=35.0), Side("Li6PS5Cl", thickness=20.0, exchange=(1, 3, 0.5)), repeat=(2, 2)': (
            'Side("Cu", thickness=14.0), Side("Ni", thickness=14.0), max_area=60, repeat=(2, 2)'
        ),
        '"model.asnq"': repr(str(files("asenequip.data") / "emt.asnq")),
        "production=50_000": "production=120, heat=10, anneal=10, interval=2",
        "lags=40": "lags=4",
        '["Li", "P", "S", "Cl"]': '["Cu", "Ni"]',
        '["P", "S", "Cl"]': '["Ni"]',
        '["Li"]': '["Cu"]',
    }
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in (study, 'from ase.io import write; write("start.extxyz", start)', *others):
        for old, new in smaller.items():
            block = block.replace(old, new)
        exec(block, names)
    assert "<img " in Path("report.html").read_text()


@pytest.mark.slow
def test_the_example_does_the_whole_study_and_does_nothing_twice(tmp_path):
    script = Path(__file__).parents[2] / "examples" / "interphase.py"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, script, tmp_path, "--smoke"], capture_output=True, text=True, timeout=600, check=True
        )
    assert "production:" not in done.stdout
    assert "<img " in (tmp_path / "cu_ni" / "results_400" / "report.html").read_text()
