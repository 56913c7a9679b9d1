"""The page of an ensemble shows its scores, its members with links to their runs, and its calibration."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danube_sweep.cli import main
from danube_sweep.config.schema import Target
from danube_sweep.storage import predictions
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted
from danube_sweep.storage.predictions import Answered
from danube_sweep.storage.refit_file import write_refit

SCORES = {
    "best single": {"loss": 0.7, "difference": 0.0, "half": 0.0},
    "greedy": {"loss": 0.65, "difference": -0.05, "half": 0.0125},
}


class Cells(HTMLParser):
    """The cells of every table row, and the targets of links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._in_cell = True
            self.rows[-1].append("")
        if tag == "a":
            self.links.append(dict(attributes)["href"])

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, text: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += text


@pytest.fixture
def ensemble(tmp_path: Path) -> EnsembleFolder:
    folder = EnsembleFolder(tmp_path / "best")
    runs = [tmp_path / "a sweep" / name for name in ("001_a", "002_b", "003_c")]
    members = [Weighted("lora.rank=2", 0.25, 2.0, runs[:1], ["0"]), Weighted("<b>", 0.75, 1.0, runs[1:], ["1", "2"])]
    folder.write(members, SCORES, "greedy")
    answers_NC = np.tile([[0.8, 0.2], [0.4, 0.6]], (20, 1))
    labels_NC = np.eye(2)[np.tile([0, 1], 20)]
    losses_N = -np.log((answers_NC * labels_NC).sum(axis=1))
    answered = Answered([str(k) for k in range(40)], losses_N, labels_NC, np.ones(40), answers_NC)
    predictions.write(folder.predictions, Target.one, ["no", "yes"], answered)
    return folder


def test_the_page_has_the_scores_the_members_and_their_links(
    ensemble: EnsembleFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["report", str(ensemble.path)]) == 0
    file = ensemble.path / "report.html"
    assert capsys.readouterr().out.startswith(f"{file}: 2 members")
    text = file.read_text()
    found = Cells(text)
    assert ["best single", "0.7000", "", ""] in found.rows
    assert ["greedy (chosen)", "0.6500", "-0.0500", "-0.0625 .. -0.0375"] in found.rows
    assert ["<b>", "0.750", "1.00", "002_b 003_c "] in found.rows
    assert ["lora.rank=2", "0.250", "2.00", "001_a "] in found.rows
    assert "../a%20sweep/002_b" in found.links
    log_loss = -np.log([0.8, 0.6]).mean()
    assert f"40 rows: log_loss {log_loss:.4f}, accuracy 1.0000" in text
    assert ["no", "1.000", "1.000", "1.000", "20"] in found.rows
    assert main.main(["report", str(ensemble.path)]) == 0  # drawn anew


def test_the_page_of_a_refit_has_its_promise_and_no_scores(ensemble: EnsembleFolder, tmp_path: Path) -> None:
    ensemble.write(ensemble.read(), {})  # which removes the answers of an earlier ensemble
    write_refit(ensemble.path, tmp_path / "a sweep", [{"row": "lora.rank=2", "promised": "log_loss 0.7 of 40 rows"}])
    assert main.main(["report", str(ensemble.path), "-o", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "lora.rank=2: the settings promised log_loss 0.7 of 40 rows" in text and "Validation rows" not in text
    assert "a%20sweep/001_a" in Cells(text).links and "../a%20sweep" not in text
