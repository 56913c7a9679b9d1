"""An ensemble predicts as its runs do one by one, and a sweep as its best trial."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sweeps
import torch
from conftest import TINY, compose
from runs import CPU, train

from danube_sweep.cli import main
from danube_sweep.config.blended_target import blended_target
from danube_sweep.config.schema import Device, Target
from danube_sweep.config.stored import load_config
from danube_sweep.errors import ConfigError
from danube_sweep.head.kinds.bradley_terry_ties import BradleyTerryHead
from danube_sweep.inference.deadline import Cost, choose
from danube_sweep.inference.predict import Place, load_run, open_run, predict_file
from danube_sweep.inference.predict_ensemble import (
    Part,
    answer_together,
    checked_requests,
    fingerprint,
    open_ensemble,
    rows_left,
)
from danube_sweep.inference.prediction_table import Form
from danube_sweep.results.ensemble.members import tempered
from danube_sweep.storage import predictions
from danube_sweep.storage.decision_file import write_decisions
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted
from danube_sweep.storage.prediction_parts import Part as Stored
from danube_sweep.storage.prediction_parts import held_parts
from danube_sweep.storage.predictions import Answered
from danube_sweep.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> sweeps.Ran:
    place = tmp_path_factory.mktemp("two") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANUBE_SWEEP_CACHE", str(place.parent / "cache"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return sweeps.run(
            sweeps.planned(place, [["lora.rank=2"], ["lora.rank=4"], ["lora.rank=2", "data.max_length=40"]])
        )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "test.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["id", "prompt", "response_a", "response_b"], *([k, f'["{k}?"]', '["far"]', '["near"]'] for k in range(5))]
        )
    return file


def numbers(file: Path) -> np.ndarray:
    with file.open(newline="") as stream:
        return np.array([[float(cell) for cell in row[1:]] for row in list(csv.reader(stream))[1:]])


def members(ran: sweeps.Ran) -> list[Weighted]:
    paths = [ran[1].path, ran[2].path]
    hashes = [str((RunFolder(path).read_result() or {})["trial"]) for path in paths]
    return [
        Weighted("first", 0.75, 2.0, [paths[0]], [hashes[0]]),
        Weighted("second", 0.25, 1.0, [paths[1]], [hashes[1]]),
    ]


def test_an_ensemble_averages_what_its_runs_answer_at_their_temperatures(
    ran: sweeps.Ran, rows: Path, tmp_path: Path
) -> None:
    EnsembleFolder(tmp_path / "best").write(members(ran), {})
    assert main.main(["predict", str(tmp_path / "best"), str(rows), "-o", str(tmp_path / "out.csv")]) == 0
    own = []
    for number in (1, 2):
        predict_file(load_run(ran[number].path, CPU), rows, tmp_path / f"{number}.csv")
        own.append(numbers(tmp_path / f"{number}.csv"))
    wanted = 0.75 * tempered(own[0], 2.0, shares=True) + 0.25 * own[1]
    assert numbers(tmp_path / "out.csv") == pytest.approx(wanted, abs=1e-9)


def test_a_sweep_predicts_with_its_best_trial_and_says_which(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ran.plan.folder.path
    assert main.main(["predict", str(sweep), str(rows), "-o", str(tmp_path / "out.csv")]) == 0
    losses = [(ran.result(number) or {})["validation"]["log_loss"] for number in (1, 2, 3)]
    best = ran[1 + int(np.argmin(losses))].path
    captured = capsys.readouterr()
    assert f"its trial {best.name} (validation/log_loss {min(losses):.4f})" in captured.out + captured.err
    predict_file(load_run(best, CPU), rows, tmp_path / "alone.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_a_member_that_has_gone_or_is_another_is_one_line(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(ran[1].path, moved)
    first, second = members(ran)
    ensemble = EnsembleFolder(tmp_path / "best")
    for runs, hashes, line in (
        ([tmp_path / "gone"], first.hashes, "of the member first is gone; bring it back"),
        ([moved], ["0" * 32], "is another trial than the one in"),
    ):
        ensemble.write([Weighted("first", 0.5, 1.0, runs, hashes), second], {})
        assert main.main(["predict", str(ensemble.path), str(rows), "-o", str(tmp_path / "out.csv")]) == 2
        assert line in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_heads_with_and_without_an_order_of_the_classes_answer_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "a.csv"
    rows.write_text("text,stars\n" + "".join(f"{'good ' * (k % 5)}{k},{1 + k % 5}\n" for k in range(40)))
    table = [*TINY, "data=table", f"data.path={rows}", "data.label_column=stars", "trainer.max_steps=2"]
    for head in ("sequence", "ordinal"):
        train(compose([*table, f"head={head}"]), tmp_path / head)
        predict_file(load_run(tmp_path / head, CPU), rows, tmp_path / f"{head}.csv")
    own = [numbers(tmp_path / f"{head}.csv") for head in ("sequence", "ordinal")]
    for first, second in (("sequence", "ordinal"), ("ordinal", "sequence")):
        best = tmp_path / f"{first} first"
        words = [str(tmp_path / first), str(tmp_path / second)]
        assert main.main(["ensemble", *words, "-o", str(best), "--method", "mean"]) == 0
        capsys.readouterr()
        command = ["predict", str(best), str(rows), "--overwrite", "-o", str(tmp_path / "out.csv")]
        assert main.main(command) == 0
        found = numbers(tmp_path / "out.csv")
        assert found == pytest.approx((own[0] + own[1]) / 2, abs=1e-6)
        assert main.main([*command, "--labels"]) == 0
        assert "labels are the median class" in capsys.readouterr().out
        medians = [int((row.cumsum() < 0.5).sum()) for row in found]
        assert labels_of(tmp_path / "out.csv") == [str(1 + place) for place in medians]
        assert main.main(["decide", str(best), "--metric", "qwk"]) == 0


def test_heads_whose_answers_have_no_mean_are_named() -> None:
    table = [*TINY, "data=table", "data.path=a.csv"]
    several = [compose([*table, f"head={head}"]) for head in ("ordinal", "regression")]
    assert blended_target(several[:1], "best") is Target.ordered
    with pytest.raises(ConfigError, match="best: answers of head=ordinal and head=regression have no mean"):
        blended_target(several, "best")


def decided(ran: sweeps.Ran, folder: Path, rule: dict[str, object]) -> None:
    write_decisions(folder, {"metric": "macro_f1", "classes": open_run(ran[1].path).classes, "rule": rule,
                             "worth": {}, "said": "macro_f1 0.1 -> 0.2 on unseen rows"})  # fmt: skip


def labels_of(file: Path) -> list[str]:
    with file.open(newline="") as stream:
        return [row[1] for row in list(csv.reader(stream))[1:]]


def test_labels_are_those_of_the_rule_that_is_kept_and_likeliest_leaves_it_out(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, out = tmp_path / "best", tmp_path / "out.csv"
    EnsembleFolder(best).write(members(ran), {})
    command = ["predict", str(best), str(rows), "-o", str(out), "--overwrite"]
    assert main.main(command) == 0
    sure, classes = numbers(out), open_run(ran[1].path).classes
    biases = [0.0, 0.0, 0.05 + float((np.log(sure).max(axis=1) - np.log(sure[:, 2])).max())]
    decided(ran, best, {"kind": "biases", "numbers": biases})
    assert main.main([*command, "--labels"]) == 0
    captured = capsys.readouterr()
    assert "labels are decided by the rule for macro_f1" in captured.out + captured.err
    assert labels_of(out) == [classes[2]] * 5
    assert main.main([*command, "--labels", "--likeliest"]) == 0
    assert labels_of(out) == [classes[place] for place in sure.argmax(axis=1)]
    capsys.readouterr()
    for words, line in (
        (["--likeliest"], "--likeliest is for labels; give --labels, or leave it out"),
        (
            ["--calibrate", "nowhere"],
            "'nowhere' is no method (auto, temperature, vector); put --calibrate after the paths",
        ),
        (["--labels", "--calibrate"], "--calibrate changes what the rule of the labels was fitted on"),
    ):
        assert main.main([*command, *words]) == 2
        assert line in capsys.readouterr().err
    EnsembleFolder(best).write(members(ran)[:1], {})  # made again, of others
    assert main.main([*command, "--labels"]) == 2
    assert "belongs to an earlier model" in capsys.readouterr().err
    decided(ran, best, {"kind": "biases", "numbers": [1.0]})
    (best / "decisions.json").write_text((best / "decisions.json").read_text().replace("biases", "no"))
    assert main.main([*command, "--labels"]) == 2
    assert "decisions.json is damaged; make it again with danube-sweep decide" in capsys.readouterr().err


def test_decide_says_what_it_gains_and_keeps_a_rule_only_if_it_does(
    ran: sweeps.Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, classes = EnsembleFolder(tmp_path / "best"), open_run(ran[1].path).classes
    best.write(members(ran), {})
    random = np.random.default_rng(0)
    sure = random.dirichlet([2, 1, 1], 400)
    labels = np.eye(3)[[random.choice(3, p=one) for one in sure]]

    def kept(file: Path, answers: np.ndarray) -> None:
        answered = Answered([str(k) for k in range(400)], np.ones(400), labels, np.ones(400), answers)
        predictions.write(file, Target.one, classes, answered)

    kept(best.predictions, sure * [1.0, 0.3, 1.0] / (sure * [1.0, 0.3, 1.0]).sum(axis=1, keepdims=True))
    assert main.main(["decide", str(best.path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "400 rows: macro_f1 0." in said and "on unseen rows (+0." in said and f"{classes[1]} +" in said
    assert "these rows also chose the ensemble" in said and "has no groups, so each row counts alone" in said
    kept(tmp_path / "other.parquet", labels * 0.9 + 0.05)
    assert main.main(["decide", str(best.path), "--predictions", str(tmp_path / "other.parquet")]) == 0
    said = capsys.readouterr().out
    assert "no rule is kept: it gains nothing on unseen rows, so the likeliest class stays" in said
    assert "these rows also chose" not in said
    assert not (best.path / "decisions.json").exists()
    best.predictions.unlink()
    for words, line in (
        ([str(best.path)], "is missing, and a rule is fitted on predictions of rows with labels"),
        ([str(tmp_path)], "is no run, sweep or ensemble; give the folder of one"),
        ([str(best.path), "--metric", "accuracy"], "--metric accuracy: the answers of this head are decided for macro"),
    ):
        assert main.main(["decide", *words]) == 2
        assert line in capsys.readouterr().err


def test_each_member_is_asked_both_ways_if_its_own_head_needs_that(ran: sweeps.Ran, rows: Path, tmp_path: Path) -> None:
    config = load_config(ran[1].folder.config)
    train(replace(config, head=BradleyTerryHead(lr=1e-3)), tmp_path / "symmetric")
    parts = [Part(open_run(path), 0.5, 1.0) for path in (tmp_path / "symmetric", ran[1].path)]
    for order in (parts, parts[::-1]):
        asked = checked_requests(order, rows, tmp_path / "out.csv", Form(swap=True))
        assert [one.swap for one in asked] == [not part.run.config.head.symmetric for part in order]


def three(ran: sweeps.Ran, folder: Path) -> EnsembleFolder:
    """Two runs that answer in one pass, and one that reads other tokens and answers after them."""
    path = ran[3].path
    third = Weighted("third", 0.5, 1.0, [path], [str((RunFolder(path).read_result() or {})["trial"])])
    first, second = members(ran)
    ensemble = EnsembleFolder(folder)
    ensemble.write([replace(first, weight=0.3), replace(second, weight=0.2), third], {})
    return ensemble


class Stopped(Exception):
    """What a test stops a prediction with."""


def test_an_interrupted_prediction_goes_on_with_its_parts_and_removes_them(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble, out = three(ran, tmp_path / "best"), tmp_path / "out.csv"
    command = ["predict", str(ensemble.path), str(rows), "--accelerator", "cpu", "-o"]
    assert main.main([*command, str(tmp_path / "whole.csv")]) == 0
    assert not (tmp_path / "whole.csv.parts").exists()

    parts, place = open_ensemble(ensemble), Place(CPU)
    requests = checked_requests(parts, rows, out, Form())
    told: list[int] = []

    def stop(answered: int) -> None:
        told.append(answered)
        if sum(told) > 10:
            raise Stopped

    with held_parts(out) as kept, pytest.raises(Stopped):
        assert not kept.begin(key := fingerprint(parts, requests, place))
        with pytest.MonkeyPatch.context() as gpu:  # whose parts would differ
            gpu.setenv("CUDA_VISIBLE_DEVICES", "0")
            gpu.setattr("danube_sweep.inference.predict_ensemble.has_gpu_files", lambda: True)
            assert key != fingerprint(parts, requests, Place(Device(accelerator="auto")))
        assert key == fingerprint(parts, requests, Place(Device(accelerator="auto")))
        assert rows_left(parts, requests, place, kept) == 15
        answer_together(parts, requests, place, done=stop, kept=kept)
    assert not out.exists() and (tmp_path / "out.csv.parts" / "000-000000.safetensors").is_file()
    with held_parts(out) as kept:
        assert kept.begin(fingerprint(parts, requests, place))
        assert rows_left(parts, requests, place, kept) == 5
        with pytest.raises(ConfigError, match="another process predicts into it"), held_parts(out):
            pass
    capsys.readouterr()
    assert main.main([*command, str(out)]) == 0
    captured = capsys.readouterr()
    assert "an earlier prediction was interrupted; this one continues it" in captured.out + captured.err
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not (tmp_path / "out.csv.parts").exists()


def test_parts_of_another_prediction_are_not_used_and_a_folder_of_others_is_left_alone(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble, out = three(ran, tmp_path / "best"), tmp_path / "out.csv"
    with held_parts(out) as kept:
        kept.begin("of another input")
        kept.keep(0, 0, Stored(["wrong"], torch.ones(1, 3)))
        kept.keep(0, 1, Stored(["wrong"], torch.ones(1, 3)))
        (kept.folder / "000-000001.safetensors").write_bytes(b"cut short")
        assert [one.examples for one in kept.stored(0)] == [["wrong"]]
    assert main.main(["predict", str(ensemble.path), str(rows), "-o", str(out)]) == 0
    assert "goes on" not in capsys.readouterr().out and numbers(out).shape == (5, 3)
    assert not (tmp_path / "out.csv.parts").exists()
    foreign = tmp_path / "mine.csv.parts"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    assert main.main(["predict", str(ensemble.path), str(rows), "-o", str(tmp_path / "mine.csv")]) == 2
    assert (
        "holds files that danube-sweep did not write (notes.txt); choose another place by -o" in capsys.readouterr().err
    )
    assert [one.name for one in foreign.iterdir()] == ["notes.txt"]


COSTS = [Cost(100, 1000, 400), Cost(50, 600, 0)]
PACKS = [[0, 1], [2]]
EVERYTHING = 1.15 * (100 + 1400 + 50 + 600)


@pytest.mark.parametrize(
    ("left_s", "members_left", "swap"),
    [
        (1.15 * (150 + 2 * 2000), [0, 1, 2], True),
        (1.15 * (150 + 2 * 2000) - 1, [0, 1, 2], False),
        (EVERYTHING, [0, 1, 2], False),
        (EVERYTHING - 1, [0, 2], False),
        (1.15 * (100 + 1000 + 50 + 600) - 1, [2], False),
        (1.15 * 650, [2], False),
    ],
)
def test_a_deadline_leaves_out_the_other_order_and_then_the_smallest_shares(
    left_s: float, members_left: list[int], swap: bool
) -> None:
    found = choose([0.3, 0.2, 0.5], PACKS, COSTS, left_s, swaps=[True, True])
    assert (found.members, found.swap) == (members_left, swap)
    if len(members_left) < 3 or not swap:
        assert found.said is not None and "--deadline-h: everything would take" in found.said
        assert ("of 3 runs" in found.said) == (len(members_left) < 3)
    with pytest.raises(ConfigError, match="a single run without --swap takes 12 min; give more time, or fewer rows"):
        choose([0.3, 0.2, 0.5], PACKS, COSTS, 700, swaps=[True, True])


def test_a_pack_that_reads_one_order_costs_one() -> None:
    costs = [Cost(100, 400, 0), Cost(100, 1000, 0)]  # both orders: 900 s and 2,100 s
    both, one = [True, True], [True, False]
    assert choose([0.5, 0.5], [[0], [1]], costs, 1.15 * 2001, swaps=one).swap
    assert not choose([0.5, 0.5], [[0], [1]], costs, 1.15 * 2001, swaps=both).swap
    with pytest.raises(ConfigError, match="no time is left after loading and timing a sample, and a single run"):
        choose([0.5, 0.5], [[0], [1]], costs, -8.2, swaps=one)


def test_a_deadline_that_is_far_changes_nothing_and_one_that_is_over_writes_nothing(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble, out = three(ran, tmp_path / "best"), tmp_path / "out.csv"
    command = ["predict", str(ensemble.path), str(rows), "-o", str(out), "--overwrite"]
    assert main.main(command) == 0
    before = out.read_bytes()
    assert main.main([*command, "--deadline-h", "5"]) == 0
    assert out.read_bytes() == before
    out.unlink()
    capsys.readouterr()
    assert main.main([*command, "--deadline-h", "1e-9"]) == 2
    assert "and a single run without --swap takes" in capsys.readouterr().err
    assert not out.exists() and not (tmp_path / "out.csv.parts").exists()
    assert main.main([*command, "--deadline-h", "0"]) == 2
    assert "--deadline-h must be above 0, got 0" in capsys.readouterr().err


def test_what_a_deadline_chose_is_kept_for_the_command_that_goes_on(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble, out = three(ran, tmp_path / "best"), tmp_path / "out.csv"
    parts, place = open_ensemble(ensemble), Place(Device(accelerator="cpu"))
    requests = checked_requests(parts, rows, out, Form())
    with held_parts(out) as kept:
        kept.begin(fingerprint(parts, requests, place, deadline=True))
        kept.choose({"members": [2], "swap": False})
    command = ["predict", str(ensemble.path), str(rows), "-o", str(out), "--accelerator", "cpu", "--deadline-h", "5"]
    assert main.main(command) == 0
    assert "1 of 3 runs answer, as was chosen before" in " ".join(capsys.readouterr().out.split())
    predict_file(load_run(ran[3].path, CPU), rows, tmp_path / "alone.csv")
    assert numbers(out) == pytest.approx(numbers(tmp_path / "alone.csv"), abs=1e-9)


@pytest.mark.parametrize("deadline", [True, False])
def test_parts_with_a_deadline_and_without_one_never_mix(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, deadline: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble, out = three(ran, tmp_path / "best"), tmp_path / "out.csv"
    parts, place = open_ensemble(ensemble), Place(Device(accelerator="cpu"))
    requests = checked_requests(parts, rows, out, Form())
    command = ["predict", str(ensemble.path), str(rows), "--accelerator", "cpu", "-o"]
    assert main.main([*command, str(tmp_path / "whole.csv")]) == 0
    with held_parts(out) as kept:
        kept.begin(fingerprint(parts, requests, place, deadline=deadline))
        if deadline:
            kept.choose({"members": [2], "swap": False})
        kept.keep(0, 0, Stored([str(k) for k in range(5)], torch.full((5, 3), 0.25)))
    capsys.readouterr()
    assert main.main([*command, str(out), *([] if deadline else ["--deadline-h", "5"])]) == 0
    assert "this one continues it" not in " ".join(capsys.readouterr().out.split())
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_rule_is_said_to_be_of_other_answers_than_those_of_both_orders_and_of_fewer_runs(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble, out = three(ran, tmp_path / "best"), tmp_path / "out.csv"
    decided(ran, ensemble.path, {"kind": "biases", "numbers": [0.0, 0.0, 9.0]})
    parts, place = open_ensemble(ensemble), Place(Device(accelerator="cpu"))
    command = ["predict", str(ensemble.path), str(rows), "-o", str(out), "--accelerator", "cpu", "--deadline-h", "5"]
    for swap, members_left in (([], [0, 1, 2]), (["--swap"], [2])):
        with held_parts(out) as kept:
            requests = checked_requests(parts, rows, out, Form(swap=bool(swap)))
            kept.begin(fingerprint(parts, requests, place, deadline=True))
            kept.choose({"members": members_left, "swap": False})
        capsys.readouterr()
        assert main.main([*command, "--labels", "--overwrite", *swap]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert ("--swap: the rule of the labels was fitted on answers to one order" in said) == bool(swap)
        assert ("the rule of the labels was fitted on the answers of all 3 runs" in said) == (len(members_left) < 3)
