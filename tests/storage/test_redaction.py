"""Secrets: by shape, by field, by the value of a variable; and nothing else is touched."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import COMPOSER, TINY

from danube_sweep.composer import compose
from danube_sweep.config.stored import load_config, plain_config
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.storage.files import read_json, write_json
from danube_sweep.storage.redaction import redact, redacted, secret_address, without_shapes
from danube_sweep.storage.sweep_folder import SweepFolder

HEX = "0123456789abcdef0123456789abcdef01234567"
SECRETS = [
    "hf_QwErTyUiOpAsDfGhJkLzXcVbNm",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz0123456789",
    "glpat-aBcD1234efGH5678ijkl",
    "sk-proj-abc123DEF456ghi789",
    "sk-abcdefghijklmnopqrstuvwx",
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


def test_of_two_secrets_that_begin_alike_neither_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AA_TOKEN", "abcdefgh1")
    monkeypatch.setenv("BB_TOKEN", "abcdefgh1-rest-of-secret9")
    assert redact("with abcdefgh1-rest-of-secret9 and abcdefgh1") == "with <BB_TOKEN> and <AA_TOKEN>"


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_known_by_its_shape_wherever_it_stands(secret: str) -> None:
    for text in (secret, f"name={secret}", f'"{secret}",', f"GET x?key={secret} failed"):
        assert secret not in without_shapes(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgres://me:hunter2@db.example.org/x", "postgres://<redacted>@db.example.org/x"),
        ("https://0123456789abcdefghij@github.com/a/b", "https://<redacted>@github.com/a/b"),
        ("postgres://user:p@ss/w0rd@host/db", "postgres://<redacted>@host/db"),
        ("postgres://user:p$$w@host/db", "postgres://<redacted>@host/db"),
        (
            "https://ghtoken12345678901@github.com/x, https://mine@host",
            "https://<redacted>@github.com/x, https://<redacted>@host",
        ),
        ("Pwd=Sec1;+my.secret=abc", "Pwd=<redacted>;+my.secret=<redacted>"),
        ("a Basic dXNlcjpwYXNzd29yZDE=", "a Basic <redacted>"),
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
        "tracking.entity=${oc.env:WANDB_ENTITY} password=${oc.env:X} s3://me:${oc.env:X}@b",
        "http://127.0.0.1:8080/a@b https://example.org/?m=@me PWD=/home/me",
        "3: Basic Materials (20), Basic Education and Training (1), Bearer of news",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_shapes(text) == text


DECIDES = [
    "/data/sk-snk-morph-v2-train/sk_reviews_train_2024.csv",
    "sk_test_reviews_2024_final.csv",
    "pk-elections-2018-results",
    "org/sk-bert-base-multilingual-v1",
    "sk-text-2023-longname-x",
    "Basic Materials",
    "Basic Education2024withdigits",
    "Password: forgotten",
    "Webhook: failing",
    f"/annex/{HEX}/rows.csv",
    "hf_sentimentclassification.csv",
]
"""Everyday paths, models, columns and classes that resemble secrets."""


def test_what_only_resembles_a_secret_stays_in_every_field_that_is_read_back() -> None:
    words = [f"data.path={one}" for one in DECIDES] + [f"data.classes=[{','.join(DECIDES)}]"]
    node = {"path": DECIDES, "asked": {"model": DECIDES}, "overrides": words, "fixed": words}
    assert redacted(node) == node
    tokens = {"classes": SECRETS, "untrained": SECRETS}  # a class of the data is a class, whatever its name
    assert redacted(tokens) == tokens


def test_a_typed_word_is_hidden_by_its_field_and_else_like_the_config() -> None:
    typed = ["+my.secret=abc", "name=Password: hunter22", f"data.path={SECRETS[0]}", "++a/b@c.api_key=[x]"]
    assert redacted({"overrides": typed})["overrides"] == [
        "+my.secret=<redacted>",
        "name=Password: <redacted>",
        "data.path=<redacted>",
        "++a/b@c.api_key=<redacted>",
    ]


@pytest.mark.parametrize(
    ("plain", "address"),
    [
        ({"data": {"path": SECRETS[0]}}, "data.path"),
        ({"data": {"path": f"${{oc.env:DIR}}/{SECRETS[0]}"}}, "data.path"),
        ({"lora": {"fields": {"password": 12345678}}}, "lora.fields.password"),
        ({"head": {"password": {"value": "abc"}}}, "head.password.value"),
        ({"head": {"tokens": ["abc"]}}, "head.tokens"),
        ({"head": {"wandb_key": "abc"}}, "head.wandb_key"),
        ({"head": {"database_url": "abc"}}, "head.database_url"),
        ({"head": {"api_key": "${oc.env:MINE}", "secret": None, "password": "", "auth": True, "token": 3}}, None),
        ({"name": SECRETS[0], "tracking": {"tags": SECRETS}, "data": {"classes": SECRETS, "path": DECIDES}}, None),
    ],
)
def test_the_field_is_found_that_would_lose_its_value_in_a_stored_config(plain: Any, address: str | None) -> None:
    assert secret_address(plain) == address


def test_a_trial_that_could_not_be_stored_is_refused_before_it_begins(tmp_path: Path) -> None:
    path = tmp_path / f"{SECRETS[0]}.csv"
    path.write_text("text,label\na,x\nb,y\nc,x\nd,y\n")
    words = [*TINY[:-1], "data=table", f"data.path={path}", "head=sequence"]
    with pytest.raises(ConfigError, match=r"data\.path: its value looks like a secret, .* data\.path='\$\{oc\.env:"):
        COMPOSER.trial(words)


def test_trials_over_names_that_resemble_secrets_come_back_from_their_sweep(tmp_path: Path) -> None:
    place = tmp_path / "sk-snk-morph-v2-train"
    place.mkdir()
    path = place / "sk_reviews_train_2024.csv"
    rows = "".join(f"{k},Basic {'Materials' if k % 2 else 'Industries'}\n" for k in range(8))
    path.write_text(f"sk-text-2023-longname-x,label\n{rows}")
    words = ["data=table", f"data.path={path}", "head=sequence", "data.text_column=sk-text-2023-longname-x"]
    words += ["data.classes=[Basic Materials,Basic Industries]"]
    config = COMPOSER.trial([*TINY[:-1], *words])
    folder = SweepFolder(tmp_path / "sweep")
    with folder.locked():
        [(entry, _)] = folder.add([(config, words, None)])
        [invalid] = folder.add_invalid([([*words, "lora.rank=0"], "no")])
    again = SweepFolder(tmp_path / "sweep").entries()
    assert load_config(entry.folder.config) == config
    assert [one.overrides for one in again] == [words, [*words, "lora.rank=0"]] and invalid.path == again[1].path


def test_a_field_that_holds_secrets_is_hidden_whatever_its_value(tmp_path: Path) -> None:
    hub = {"api_key": "abc", "auth_token": "x", "password": {"value": ["abc"]}, "tokens": ["a"], "database_url": "b"}
    write_json(tmp_path / "a.json", {"hub": hub, "kind": "token", "pad_token": "<s>", "f1": {"secret": 0.5}})
    assert read_json(tmp_path / "a.json") == {
        "hub": {
            "api_key": "<redacted>",
            "auth_token": "<redacted>",
            "password": {"value": ["<redacted>"]},
            "tokens": ["<redacted>"],
            "database_url": "<redacted>",
        },
        "kind": "token",
        "pad_token": "<s>",
        "f1": {"secret": 0.5},  # the score of a class
    }


def test_values_of_secret_variables_are_replaced_in_free_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("MY_TOKEN", "short")
    monkeypatch.setenv("HARMLESS", "not a secret")
    monkeypatch.setenv("SSH_PWD", "bradley_terry_ties")
    assert redact("key 0123456789abcdef, short, not a secret") == "key <WANDB_API_KEY>, short, not a secret"
    monkeypatch.setenv("DB_URL", "postgres://me:hunter2@db/x")
    monkeypatch.setenv("SLACK_URL", "https://chat.example.org/services/T00000000B00000000XXXX")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:8080")
    assert redact("at postgres://me:hunter2@db/x on http://127.0.0.1:8080") == "at <DB_URL> on http://127.0.0.1:8080"
    assert redact("https://chat.example.org/services/T00000000B00000000XXXX: no") == "<SLACK_URL>: no"
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
