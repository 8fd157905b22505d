"""scikit-learn's own checks of estimators."""

from __future__ import annotations

import pytest
import sklearn
from sklearn.utils.estimator_checks import check_estimator

from asenequip.cluster import BMTI, KNN, DensityPeaks, Gride, KStarNN, PAk, TwoNN

if tuple(int(part) for part in sklearn.__version__.split(".")[:2]) < (1, 6):
    pytest.skip("scikit-learn before 1.6 cannot name checks that are expected to fail", allow_module_level=True)

EXPECTED = {
    "check_clustering": "three peaks of fifty points in all do not rise above their saddles significantly",
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    "estimator",
    [KNN(), KStarNN(), PAk(), BMTI(samples=2), DensityPeaks(density=KStarNN()), TwoNN(), Gride(8)],
    ids=lambda e: type(e).__name__,
)
def test_scikit_learn_accepts_it(estimator):
    expected = EXPECTED if isinstance(estimator, DensityPeaks) else None
    check_estimator(estimator, expected_failed_checks=expected, on_skip=None)
