"""Error bars of every analysis hold the truth as often as they say; few repeats here, a hundred in the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binom

from benchmarks.bench_interface import CASES, LEVEL, coverage

REPEATS = 12
SEED = 7
UNLIKELY = 1e-4
"""A test fails if bars that are right would cover as seldom with less than this probability."""


@pytest.mark.parametrize("case", [name for name in CASES if name != "arrhenius"])
def test_intervals_hold_the_truth(case):
    for name, row in coverage(case, REPEATS, SEED).items():
        assert binom.cdf(round(row["covered"] * REPEATS), REPEATS, LEVEL) > UNLIKELY, name
        assert 0.4 < row["calibration"] < 2.2, name  # bars that are far too wide would hold the truth always


def test_the_recorded_coverage_is_at_least_90_percent():
    path = Path(__file__).parents[2] / "benchmarks" / "results" / "interface_coverage.json"
    recorded = json.loads(path.read_text())
    assert recorded["repeats"] >= 100
    low = {name: row["covered"] for name, row in recorded["quantities"].items() if row["covered"] < 0.9}
    assert low == {}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_intervals_hold_the_truth_in_90_percent_of_many_repeats(case):
    low = {name: row["covered"] for name, row in coverage(case, 200).items() if row["covered"] < 0.9}
    assert low == {}
