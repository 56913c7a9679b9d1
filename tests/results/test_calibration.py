"""A temperature is the one that a logistic regression finds, and its worth is that on unseen rows."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from danube_sweep.config.schema import Target
from danube_sweep.errors import ConfigError
from danube_sweep.results.calibration import best_scaling, best_temperature, calibrate
from danube_sweep.storage import predictions
from danube_sweep.storage.predictions import Answered


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    powered = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return np.asarray(powered / powered.sum(axis=1, keepdims=True))


def drawn(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their probabilities."""
    random = np.random.default_rng(seed)
    logits_NC = random.normal(size=(rows, classes)) * 1.5
    return logits_NC, np.array([random.choice(classes, p=one) for one in softmax(logits_NC)])


def test_the_temperature_of_two_classes_is_the_slope_of_a_logistic_regression() -> None:
    logits_NC, labels_N = drawn(400, 2)
    sure_NC = softmax(3 * logits_NC)
    difference_N1 = (np.log(sure_NC[:, 1]) - np.log(sure_NC[:, 0]))[:, None]
    slope = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-9).fit(difference_N1, labels_N).coef_[0, 0]
    assert best_temperature(sure_NC, labels_N) == pytest.approx(1 / slope, rel=1e-3)


def test_a_model_that_is_too_sure_is_calibrated_on_unseen_rows(tmp_path: Path) -> None:
    logits_NC, labels_N = drawn(3000, 3)
    sure_NC = softmax(2 * logits_NC)
    file = tmp_path / "predictions.parquet"
    losses_N = -np.log(sure_NC[np.arange(3000), labels_N])
    answered = Answered([str(k) for k in range(3000)], losses_N, np.eye(3)[labels_N], np.ones(3000), sure_NC)
    predictions.write(file, Target.one, ["a", "b", "c"], answered)
    found = calibrate(file)
    assert found.temperature == pytest.approx(2, rel=0.08)
    assert found.before["log_loss"] == pytest.approx(losses_N.mean())
    perfect = -np.log(softmax(logits_NC)[np.arange(3000), labels_N]).mean()
    assert found.after["log_loss"] == pytest.approx(perfect, abs=2e-3)
    assert found.after["ece"] < 0.03 < found.before["ece"]


def written(file: Path, sure_NC: np.ndarray, labels_N: np.ndarray) -> Path:
    rows, classes = sure_NC.shape
    losses_N = -np.log(sure_NC[np.arange(rows), labels_N])
    answered = Answered([str(k) for k in range(rows)], losses_N, np.eye(classes)[labels_N], np.ones(rows), sure_NC)
    predictions.write(file, Target.one, list("abcd")[:classes], answered)
    return file


def test_the_scaling_of_two_classes_is_a_logistic_regression_on_both_log_probabilities() -> None:
    logits_NC, labels_N = drawn(600, 2)
    sure_NC = softmax(2.5 * logits_NC + np.array([0.0, 1.0]))
    found = best_scaling(sure_NC, labels_N)
    fitted = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(np.log(sure_NC), labels_N)
    assert found(sure_NC) == pytest.approx(fitted.predict_proba(np.log(sure_NC)), abs=2e-4)


def test_classes_that_are_skewed_are_scaled_one_by_one_and_others_by_a_temperature(tmp_path: Path) -> None:
    logits_NC, labels_N = drawn(2000, 3)
    skewed = calibrate(written(tmp_path / "skewed", softmax(2 * logits_NC + [0, 0, 1.5]), labels_N), "auto")
    assert skewed.scaling is not None and skewed.temperature == 1.0
    assert skewed.scaling.slopes_C == pytest.approx((0.5, 0.5, 0.5), abs=0.1)
    slopes, biases = np.array(skewed.scaling.slopes_C), np.array(skewed.scaling.biases_C)
    assert biases - biases[0] == pytest.approx(np.array([0, 0, -0.75]), abs=0.2) and slopes.shape == (3,)
    perfect = log_loss(labels_N, softmax(logits_NC))
    assert skewed.after["log_loss"] == pytest.approx(perfect, abs=5e-3)
    assert "log probabilities scaled by class (a x0." in skewed.said()
    by_one = calibrate(written(tmp_path / "skewed", softmax(2 * logits_NC + [0, 0, 1.5]), labels_N), "temperature")
    assert by_one.scaling is None and by_one.after["log_loss"] > skewed.after["log_loss"] + 0.02
    sharp = calibrate(written(tmp_path / "sharp", softmax(2 * logits_NC), labels_N), "auto")
    assert min(sharp.after["log_loss"], by_one.after["log_loss"]) < sharp.before["log_loss"]


def test_a_calibration_that_gains_nothing_says_so(tmp_path: Path) -> None:
    logits_NC, labels_N = drawn(60, 3)
    said = "; the log loss is no better, so better leave --calibrate out"
    honest = calibrate(written(tmp_path / "honest", softmax(logits_NC), labels_N))
    assert honest.after["log_loss"] >= honest.before["log_loss"] and honest.said().endswith(said)
    sharp = calibrate(written(tmp_path / "sharp", softmax(3 * logits_NC), labels_N))
    assert sharp.after["log_loss"] < sharp.before["log_loss"] and said not in sharp.said()


def test_a_rare_class_gets_no_numbers_of_its_own(tmp_path: Path) -> None:
    logits_NC, labels_N = drawn(300, 3)
    labels_N[labels_N == 2] = 1
    labels_N[:40] = 2
    file = written(tmp_path / "rare", softmax(2 * logits_NC), labels_N)
    assert calibrate(file, "auto").scaling is None
    with pytest.raises(ConfigError, match="needs 50 validation rows of each class, and the rarest has 40"):
        calibrate(file, "vector")


def test_without_rows_there_is_nothing_to_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"and .* has no predictions; give --calibrate-on FILE"):
        calibrate(tmp_path / "predictions.parquet")
    file = tmp_path / "numbers.parquet"
    number = np.arange(6.0)[:, None]
    predictions.write(file, Target.number, ["n"], Answered(list("abcdef"), np.ones(6), number, np.ones(6), number))
    with pytest.raises(ConfigError, match="needs one class an example"):
        calibrate(file)
