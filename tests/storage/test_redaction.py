"""Secrets: by shape, by field, by the value of a variable; and nothing else is touched."""

import json
from pathlib import Path

import pytest
from conftest import TINY

from danube_sweep.composer import compose
from danube_sweep.config.stored import load_config, plain_config
from danube_sweep.errors import CheckpointError
from danube_sweep.storage.files import read_json, write_json
from danube_sweep.storage.redaction import redact, redacted, without_shapes
from danube_sweep.storage.sweep_folder import SweepFolder

HEX = "0123456789abcdef0123456789abcdef01234567"
SECRETS = [
    "hf_QwErTyUiOpAsDfGhJkLzXcVbNm",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz0123456789",
    "glpat-aBcD1234efGH5678ijkl",
    "sk-proj-abc123DEF456ghi789",
    "sk_live_abcdefghij0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "xoxb-1234567890-abcdefghij",
    "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXX",
    "https://discord.com/api/webhooks/123456/AbCdEf",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    f"wandb_v1_{HEX}",
    f"local-{HEX}",
    HEX,
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_known_by_its_shape_wherever_it_stands(secret: str) -> None:
    for text in (secret, f"name={secret}", f'"{secret}",', f"GET x?key={secret} failed"):
        assert secret not in without_shapes(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgres://me:hunter2@db.example.org/x", "postgres://<redacted>@db.example.org/x"),
        ("https://0123456789abcdefghij@github.com/a/b", "https://<redacted>@github.com/a/b"),
        ("Server=db;Password=hunter22;Port=1", "Server=db;Password=<redacted>;Port=1"),
        ("AccountKey=aGVsbG8gd29ybGQ=;x", "AccountKey=<redacted>;x"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer <redacted>"),
        ("GET /x?token=abcdef123&n=1", "GET /x?token=<redacted>&n=1"),
        ("my_api_key: abcd1234", "my_api_key: <redacted>"),
    ],
)
def test_only_the_secret_part_of_a_text_goes(text: str, left: str) -> None:
    assert without_shapes(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "head=token data=tokens lora.rank=8",
        f"model.commit={HEX}",
        f"h2oai/h2o-danube3-500m-base@{HEX}",
        f"/home/me/.cache/huggingface/hub/models--a--b/snapshots/{HEX}/model.safetensors",
        f"trial {HEX[:32]}",
        "bos_token=123456789 pad_token=[PAD]",
        "the token: longest; tokens=10000000",
        "https://example.org/a:b ssh://git@example.org/x task-1234567890123456789",
        "tracking.entity=${oc.env:WANDB_ENTITY} password=${oc.env:X}",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_shapes(text) == text


def test_a_field_that_holds_secrets_is_hidden_whatever_its_value(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"hub": {"api_key": "abc", "auth_token": "x"}, "kind": "token", "pad_token": "<s>"})
    assert read_json(tmp_path / "a.json") == {
        "hub": {"api_key": "<redacted>", "auth_token": "<redacted>"},
        "kind": "token",
        "pad_token": "<s>",
    }


def test_values_of_secret_variables_are_replaced_in_free_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("MY_TOKEN", "short")
    monkeypatch.setenv("HARMLESS", "not a secret")
    monkeypatch.setenv("SSH_PWD", "bradley_terry_ties")
    assert redact("key 0123456789abcdef, short, not a secret") == "key <WANDB_API_KEY>, short, not a secret"
    assert redact("x0123456789abcdef") == "x0123456789abcdef"  # part of a longer word
    told = {"kind": "bradley_terry_ties", "error": "no bradley_terry_ties", "n": 1, "name": ["0123456789abcdef"]}
    hidden = {"kind": "bradley_terry_ties", "error": "no <SSH_PWD>", "n": 1, "name": ["<WANDB_API_KEY>"]}
    assert redacted(told) == hidden
    assert redacted({"x": "0123456789abcdef"}) == {"x": "0123456789abcdef"}
    assert redacted({"x": "0123456789abcdef"}, shown=True) == {"x": "<WANDB_API_KEY>"}


@pytest.mark.parametrize("state", ["finished", "diverged"])
def test_a_variable_that_is_called_like_a_state_changes_no_result(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGE_KEY", state)
    write_json(tmp_path / "result.json", {"state": state, "error": f"it {state}"})
    assert json.loads((tmp_path / "result.json").read_text()) == {"state": state, "error": f"it {state}"}


# ------------------------------------------------------------------------------------------- from the environment


def test_what_an_override_takes_from_the_environment_is_stored_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TEAM", "correct-horse")
    monkeypatch.setenv("MY_DATA", "rows")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("text,label\na,x\nb,y\nc,x\nd,y\n")
    words = ["name=${oc.env:MY_TEAM}", "tracking=wandb", "tracking.group=g-${name}", "tracking.tags=[a,'${name}']"]
    words += ["data=table", "data.path=${oc.env:MY_DATA}.csv", "head=sequence"]
    config = compose([*TINY[:-1], *words])
    assert (config.name, config.data.path) == ("correct-horse", str(tmp_path / "rows.csv"))  # type: ignore[attr-defined]
    plain = plain_config(config)
    assert plain["name"] == "${oc.env:MY_TEAM}" and plain["tracking"]["group"] == "g-${name}"
    assert plain["data"]["path"] == f"{tmp_path}/${{oc.env:MY_DATA}}.csv"
    folder = SweepFolder(tmp_path / "sweep")
    with folder.locked():
        [(entry, _)] = folder.add([(config, words, None)])
    written = [file.read_text() for file in folder.path.rglob("*") if file.is_file()]
    assert not any("correct-horse" in text for text in written) and "correct" not in entry.path.name
    assert redact("trial correct-horse") == "trial <MY_TEAM>"
    monkeypatch.chdir("/")
    assert load_config(entry.folder.config) == config
    monkeypatch.delenv("MY_TEAM")
    with pytest.raises(CheckpointError, match=r"config\.yaml: the environment lacks MY_TEAM, which it names; set it"):
        load_config(entry.folder.config)


def test_a_token_that_is_typed_reaches_no_file_and_no_name_of_a_folder(tmp_path: Path) -> None:
    token = SECRETS[0]
    folder = SweepFolder(tmp_path)
    with folder.locked():
        [(entry, new)] = folder.add([(compose([*TINY, f"name={token}"]), [f"name={token}"], None)])
        [invalid] = folder.add_invalid([([f"name={token}", "lora.rank=0"], f"name={token}: no")])
        [again] = folder.add_invalid([([f"name={token}", "lora.rank=0"], "again")])
    assert again.path == invalid.path
    assert new and load_config(entry.folder.config).name == "<redacted>"
    for path in tmp_path.rglob("*"):
        assert token not in str(path) and (path.is_dir() or token not in path.read_text())
