"""JSON and YAML that anything may have happened to: a value or one short reason."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from danube_sweep.decoding import Undecodable, json_from, yaml_from, yaml_in_sections

BOMB = "a: &a [x,x]\n" + "".join(
    f"{to}: &{to} [{','.join([f'*{of}'] * 9)}]\n" for of, to in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (json_from, "[" * 100_000, "nested too deeply"),
        (json_from, "9" * 5000, "Exceeds the limit"),
        (json_from, b"\xff\xfe", "can't decode byte"),
        (json_from, "", "Expecting value"),
        (yaml_from, "{a: " * 500, "nested too deeply"),
        (yaml_from, "".join(" " * depth + "a:\n" for depth in range(500)), "nested too deeply"),
        (yaml_from, "[" * 100_000, "nesting"),
        (yaml_from, "a: 2024-02-31", "day is out of range"),
        (yaml_from, "a: !!timestamp x", "no attribute"),
        (yaml_from, "!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (yaml_from, BOMB, "more than 200,000 values"),
        (yaml_from, "a: &a [*a]", "more than 200,000 values"),
        (yaml_from, "a: \0", "unacceptable character"),
        (yaml_from, "? [1]\n: 2", "unhashable key"),
    ],
)
def test_what_cannot_be_decoded_is_one_error_in_one_line(
    read: Callable[[Any], Any], text: str | bytes, said: str
) -> None:
    with pytest.raises(Undecodable, match=said) as caught:
        read(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_whole_files_come_back_as_they_were_written() -> None:
    assert json_from(b'{"name": "Donau, gr\xc3\xb6\xc3\x9fte"}') == {"name": "Donau, größte"}
    assert yaml_from("a: [1, 2.5, '1e3', null]\nb: {c: yes}\n") == {"a": [1, 2.5, "1e3", None], "b": {"c": True}}


CONFIG = "seed: 1\nname: null\n"
CONFIG += "lora:\n  kind: lora\n  targets:\n  - q\n  - v\n  note: 'a\n\n    b'\nhead:\n  words: |\n    x\n"


@pytest.mark.parametrize(
    "text",
    [
        CONFIG,
        CONFIG.replace("seed: 1", "seed: 2").encode(),
        "a: &a [1]\nb: *a\n",
        "a: 1\na: 2\nb: {c: 1}\n",
        "- a\n- b: 1\n",
        "# said\na: 1\n---\n",
        "a: 'x\nb: y'\n",
        "1: a\nyes: b\n",
        "a:\nb: x\n",
        "",
        "a\n",
        "%YAML 1.1\n---\na: 1\n",
    ],
)
def test_a_text_read_in_sections_is_the_text_read_whole(text: str | bytes) -> None:
    try:
        whole = yaml_from(text)
    except Undecodable as error:
        with pytest.raises(Undecodable, match=re.escape(str(error))):
            yaml_in_sections(text)
        return
    assert yaml_in_sections(text) == whole == yaml_in_sections(text)
