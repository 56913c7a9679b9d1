"""The planner against runs that others measured: benchmarks/published_t4.py, every model predicted from the others."""

import sys
from pathlib import Path

import pytest
from conftest import ROOT, compose

sys.path.insert(0, str(ROOT / "benchmarks"))
import published_t4


@pytest.fixture(scope="module")
def measured() -> list[published_t4.Row]:
    folder = ROOT.parent / "shared" / "published"
    if not (folder / "t4_measured.csv").is_file():
        pytest.skip("the published T4 runs are not here: shared/published/t4_measured.csv beside the checkout")
    return published_t4.read(folder)


@pytest.fixture(scope="module")
def ratios(measured: list[published_t4.Row]) -> list[tuple[published_t4.Row, float, float]]:
    return published_t4.left_out(measured, compose(["device=kaggle_t4"]).device)


def test_a_models_steps_are_predicted_from_other_models_runs(
    ratios: list[tuple[published_t4.Row, float, float]],
) -> None:
    assert published_t4.within([seconds for _, seconds, _ in ratios], 0.3) >= 0.8


def test_a_models_process_memory_is_predicted_from_other_models_runs(
    ratios: list[tuple[published_t4.Row, float, float]],
) -> None:
    assert published_t4.within([memory for _, _, memory in ratios], 0.1) >= 0.9


def test_the_t4_of_the_table_has_what_was_fitted(measured: list[published_t4.Row]) -> None:
    t4 = compose(["device=kaggle_t4"]).device
    fitted = published_t4.fit(measured, t4)
    assert t4.efficiency == pytest.approx(fitted.efficiency, abs=0.01)
    assert t4.attention_efficiency == pytest.approx(fitted.attention_efficiency, abs=0.01)
    assert t4.launch_us == pytest.approx(fitted.launch_s * 1e6, abs=1)


def test_the_document_shows_the_table_that_the_command_prints(measured: list[published_t4.Row]) -> None:
    text = Path(ROOT, "docs", "memory.md").read_text(encoding="utf-8")
    assert published_t4.table(measured, compose(["device=kaggle_t4"]).device) in text
