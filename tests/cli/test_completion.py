"""What the shell is offered: subcommands, and options after a comma."""

import pytest

from danube_sweep.cli import main
from danube_sweep.cli.help import help_text
from danube_sweep.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "offered", "never"),
    [
        ("danube-sweep re", {"resume", "report"}, {"rank"}),
        ("danube-sweep ", {"init", "rank", "lora="}, set()),
        ("danube-sweep rank ", set(), {"rank", "lora="}),
        ("danube-sweep init train.csv prec", {"precision="}, set()),
        ("danube-sweep tonight train.csv --test test.csv lora=lora prec", {"precision="}, set()),
        ("danube-sweep tonight train.csv --models dan", {"danube3_4b", "danube_tiny"}, {"lora="}),
        ("danube-sweep tonight train.csv --models danube3_4b,danube3", {"danube3_4b,danube3_500m"}, {"danube3_500m"}),
        ("danube-sweep tonight train.csv --device kag", {"kaggle_t4"}, {"lora="}),
        ("danube-sweep --he", {"--help"}, {"head=", "lora="}),
        ("danube-sweep tonight --he", {"--help"}, {"head="}),
        ("danube-sweep plan prec", {"precision="}, {"plan"}),
        ("danube-sweep -m precision=nf4,b", {"precision=nf4,bf16"}, {"precision=nf4,nf4"}),
        ("danube-sweep -m lora=lora,dora head=seq", {"head=sequence"}, {"head=token"}),
    ],
)
def test_a_line_goes_on(
    line: str, offered: set[str], never: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert main.main(["-sc", "query=bash"]) == 0
    found = set(capsys.readouterr().out.split())
    assert offered <= found
    assert not never & found


def test_help_finds_a_field_by_a_word_of_its_name_or_of_another_tool() -> None:
    assert "sweep.pack " in help_text("pack")
    assert "sweep.slots " in help_text("sweep.slot")
    assert "write optimizer.lr=…" in help_text("learning-rate")
    with pytest.raises(ConfigError, match="no such group, and no field is called so; there are model, precision"):
        help_text("nonsense")
