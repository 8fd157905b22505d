"""A campaign: it learns, ends for its reason, and goes on after a kill at any step; no label is lost or repeated."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from labellers_for_tests import calls

from asenequip import load_artifact
from asenequip.active.campaign import run_campaign
from asenequip.active.rounds import CampaignError, CampaignLockedError, held, read_frames, write_frames
from asenequip.active.settings import load_campaign, parse_campaign
from asenequip.active.store import LabelStore
from asenequip.train.config import ConfigError

HERE = Path(__file__).parent
TRAIN = {
    "model": {
        "cutoff": 3.5,
        "l_max": 1,
        "num_scalar_features": 8,
        "num_tensor_features": 4,
        "two_body_width": 8,
        "latent_width": 8,
        "readout_width": 8,
    },
    "training": {"epochs": 2, "batch_size": 2, "checkpoint_seconds": 0},
    "uncertainty": {"directions": 1},
    "threads": 1,
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def settings(folder: Path, **changes) -> dict:
    """A campaign of seconds: six starts, two rounds of three labels and four fresh ones."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for k in range(6):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=k)
        frames.append(atoms)
    write(folder / "starts.extxyz", frames)
    values = {
        "start": {"frames": str(folder / "starts.extxyz")},
        "label": {"calculator": "labellers_for_tests:faulty", "options": {"folder": str(folder)}},
        "explore": {
            "dynamics": {"runs": 1, "temperatures": [300.0], "steps": 8, "interval": 4},
            "rattle": {"count": 10},
        },
        "select": {"count": 3, "fresh": 4},
        "train": TRAIN,
        "stop": {"force_error": 1e-9, "rounds": 2},
        "output": str(folder / "campaign"),
        "device": "cpu",
    }
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(values.get(name), dict) else value
    return values


def fingerprint(folder: Path) -> dict:
    """What must not depend on interruptions: candidates, choices, labels, weights."""
    found = {}
    for path in sorted(folder.glob("campaign/round_*/*.extxyz")):
        found[f"{path.parent.name}/{path.name}"] = path.read_text()
    for path in sorted(folder.glob("campaign/round_*/labelled.json")):
        keys = json.loads(path.read_text())
        found[f"{path.parent.name} labels"] = sorted([*keys["train"], *keys["fresh"]])
    for path in sorted(folder.glob("campaign/round_*/trained.json")):
        model = load_artifact(folder / "campaign" / json.loads(path.read_text())["model"]).model
        found[f"{path.parent.name} weights"] = np.concatenate([p.numpy().ravel() for p in model.state_dict().values()])
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    sys.path.insert(0, str(HERE))
    try:
        lines: list[str] = []
        outcome = run_campaign(parse_campaign(settings(folder)), watch=lines.append)
    finally:
        sys.path.remove(str(HERE))
    return folder, outcome, lines


def test_a_campaign_labels_trains_and_reports(undisturbed):
    folder, outcome, _ = undisturbed
    assert outcome.reason == "all rounds are done"
    assert outcome.rounds == 2
    assert outcome.labels == 6 + 2 * (3 + 4)
    assert len(calls(folder)) == outcome.labels
    assert load_artifact(outcome.model).uncertainty is not None
    page = (folder / "campaign/index.html").read_text()
    assert "all rounds are done" in page
    assert page.count("<tr>") == 1 + 3
    assert "http" not in page
    judged = json.loads((folder / "campaign/round_001/judged.json").read_text())
    assert judged["frames"] == 4
    assert judged["bound"] >= judged["force_rmse"] > 0


def test_running_it_again_does_nothing(undisturbed):
    folder, outcome, _ = undisturbed
    before = fingerprint(folder)
    again: list[str] = []
    assert run_campaign(parse_campaign(settings(folder)), watch=again.append) == outcome
    assert again == []
    np.testing.assert_equal(fingerprint(folder), before)


def test_it_stops_when_the_error_is_small_enough(tmp_path):
    values = settings(tmp_path, stop={"force_error": 1e9, "rounds": 5})
    outcome = run_campaign(parse_campaign(values))
    assert outcome.reason == "the error is small enough"
    assert outcome.rounds == 0
    assert outcome.labels == 6 + 7


def test_other_settings_are_refused_but_for_those_that_may_change(undisturbed):
    folder, _, _ = undisturbed
    with pytest.raises(ConfigError, match=r"another select\.method"):
        run_campaign(parse_campaign(settings(folder, select={"method": "random"})))
    run_campaign(parse_campaign(settings(folder, label={"workers": 2})))
    with held(folder / "campaign"), pytest.raises(CampaignLockedError):
        run_campaign(parse_campaign(settings(folder)))


def test_a_ramp_of_temperature_and_pressure_with_a_bias_is_recorded(tmp_path):
    dynamics = {"temperatures": [300.0, 600.0], "pressures": [0.0, 2.0], "steps": 8, "interval": 4, "bias": 0.5}
    values = settings(tmp_path, stop={"force_error": 1e9}, explore={"dynamics": {"runs": 1, **dynamics}})
    outcome = run_campaign(parse_campaign(values))
    assert outcome.reason == "the error is small enough"
    frames = read_frames(tmp_path / "campaign/round_001/candidates.extxyz")
    wanted = [f"dynamics 0, {stage}, bias 0.5, step {k}" for stage in ("300 K 0 GPa", "600 K 2 GPa") for k in (4, 8)]
    assert [atoms.info["origin"] for atoms in frames if "dynamics" in atoms.info["origin"]] == wanted
    labelled = [atoms.info["origin"] for atoms in LabelStore(tmp_path / "campaign/labels.db").frames()[6:]]
    assert len(labelled) == 7
    assert set(labelled) <= {atoms.info["origin"] for atoms in frames}


DRIVER = """
import json, os, signal, sys, threading
sys.path.insert(0, {here!r})
from asenequip.active.campaign import run_campaign
from asenequip.active.settings import parse_campaign
lines = []
def watch(line):
    lines.append(line)
    if line.endswith(": train"):
        threading.Timer({delay!r}, os.kill, (os.getpid(), signal.SIGKILL)).start()
    if len(lines) == {kill!r}:
        os.kill(os.getpid(), signal.SIGKILL)
run_campaign(parse_campaign(json.loads({values!r})), watch)
"""


@pytest.mark.slow
def test_a_kill_at_any_step_changes_nothing(undisturbed, tmp_path):
    """SIGKILL a few lines of the driver's account further each time, and in the midst of training."""
    reference, _, lines = undisturbed
    values = settings(tmp_path)
    kills = 0
    for attempt, kill in enumerate([1, 2, 3, 5, 7] * len(lines)):
        delay = 0.3 if attempt % 2 else 60.0
        text = DRIVER.format(here=str(HERE), kill=kill, delay=delay, values=json.dumps(values))
        code = subprocess.run([sys.executable, "-c", text], timeout=600).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert code == 0
    assert kills >= 8
    mine, theirs = fingerprint(tmp_path), fingerprint(reference)
    for name in theirs:
        if "labels" not in name:  # their names hold the folder's name, through the labeller's options
            np.testing.assert_equal(mine[name], theirs[name], err_msg=name)
    assert len(LabelStore(tmp_path / "campaign/labels.db").frames()) == 20
    names = calls(tmp_path)
    assert len(set(names)) == 20
    assert len(names) - len(set(names)) <= kills  # one worker: at most the label under way at each kill


def test_crashing_labels_are_survived_and_reported(tmp_path):
    values = settings(tmp_path, stop={"force_error": 1e-9, "rounds": 1})
    (tmp_path / "good.extxyz").write_bytes((tmp_path / "starts.extxyz").read_bytes())
    values["explore"]["starts"] = str(tmp_path / "good.extxyz")
    atoms = bulk("Cu", cubic=True)
    atoms.positions[0, 0] = 1.0  # the labeller's process dies on it
    write(tmp_path / "starts.extxyz", atoms, append=True)
    outcome = run_campaign(parse_campaign(values))
    assert outcome.labels == 6 + 7
    failures = json.loads((tmp_path / "campaign/round_000/labelled.json").read_text())["failures"]
    assert [failure["reason"] for failure in failures] == ["crashed"]


@pytest.mark.parametrize("name", ["candidates.extxyz", "labelled.json", "trained.json", "index.html"])
def test_a_full_disk_stops_it_and_it_goes_on(name, undisturbed, tmp_path, monkeypatch):
    import asenequip.active.page as page
    import asenequip.active.rounds as rounds

    values = settings(tmp_path, stop={"force_error": 1e-9, "rounds": 1})
    write_whole, hits = rounds.replace_file, []

    def full(path, data):
        if path.name == name and len(hits) < 1:
            hits.append(1)
            raise OSError(28, "No space left on device")
        write_whole(path, data)

    monkeypatch.setattr(rounds, "replace_file", full)
    monkeypatch.setattr(page, "replace_file", full)
    with pytest.raises(OSError, match="No space left"):
        run_campaign(parse_campaign(values))
    assert run_campaign(parse_campaign(values)).labels == 13
    names = calls(tmp_path)
    assert len(names) == len(set(names)) == 13
    mine, theirs = fingerprint(tmp_path), fingerprint(undisturbed[0])
    np.testing.assert_equal(mine["round_001 weights"], theirs["round_001 weights"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select": {"fresh": 2}}, r"select\.fresh must be at least 4"),
        ({"labels": {}}, "Did you mean `label`"),
        ({"train": {"output": "x"}}, r"train\.output is set by the campaign"),
        ({"train": {"model": {"cutof": 3.0}}}, r"model\.cutof.*Did you mean `cutoff`"),
        ({"explore": {"dynamics": {"pressures": [1.0]}}}, "as many as temperatures"),
        ({"train": {"uncertainty": None}}, r"train\.uncertainty must not be null: select\.method: mixed asks for it"),
    ],
)
def test_wrong_settings_are_named(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        parse_campaign(settings(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"explore": {"starts": "absent.xyz"}}, r"no file 'absent\.xyz'\. Correct explore\.starts"),
        ({"start": {"model": "absent.asnq"}}, r"no file 'absent\.asnq'\. Correct start\.model"),
        (
            {"select": {"radius": 3.0}},
            r"select\.radius must be at least the potential's cutoff, 3\.5 A\. Got 3 instead",
        ),
    ],
)
def test_what_would_fail_in_a_later_round_is_refused_before_the_first_label(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run_campaign(parse_campaign(settings(tmp_path, **changes)))
    assert calls(tmp_path) == []


def test_a_start_model_without_uncertainty_is_refused_where_it_is_asked_for(small_artifact, tmp_path):
    with pytest.raises(ConfigError, match=r"carries no uncertainty, which select\.method: mixed asks for"):
        run_campaign(parse_campaign(settings(tmp_path, start={"model": str(small_artifact)})))
    assert calls(tmp_path) == []


def test_starts_that_cannot_be_read_or_labelled_are_told(tmp_path):
    values = settings(tmp_path / "a")
    (tmp_path / "a" / "starts.extxyz").write_text("no structure\n")
    with pytest.raises(ConfigError, match="cannot be read by ASE at index ':'"):
        run_campaign(parse_campaign(values))
    values = settings(tmp_path / "b")
    atoms = bulk("Cu", cubic=True)
    atoms.positions[0, 0] = 3.0  # the labeller does not converge on it
    write(tmp_path / "b" / "starts.extxyz", [atoms, atoms])
    with pytest.raises(CampaignError, match=r"Not one of the 2 first frames could be labelled; .*did not converge"):
        run_campaign(parse_campaign(values))


def test_paths_are_relative_to_the_file(tmp_path):
    import yaml

    values = settings(tmp_path, start={"frames": "starts.extxyz"}, output="here")
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(values))
    found = load_campaign(tmp_path / "campaign.yaml", ["stop.rounds=3"])
    assert found.start.frames == str(tmp_path / "starts.extxyz")
    assert found.output == str(tmp_path / "here")
    assert found.stop.rounds == 3


def test_frames_survive_the_file_exactly(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.123456789, seed=1)
    write_frames(tmp_path / "a.extxyz", [atoms])
    first = read_frames(tmp_path / "a.extxyz")
    write_frames(tmp_path / "b.extxyz", first)
    np.testing.assert_array_equal(first[0].positions, read_frames(tmp_path / "b.extxyz")[0].positions)
    np.testing.assert_allclose(first[0].positions, atoms.positions, atol=1e-8)
    write_frames(tmp_path / "none.extxyz", [])
    assert read_frames(tmp_path / "none.extxyz") == []
