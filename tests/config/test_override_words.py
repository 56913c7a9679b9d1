"""Values survive the way through Hydra's grammar: its own parser is the judge."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from danube_sweep.config.override_words import override_word


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "a b",
        "a,b",
        "it's",
        'say "x"',
        "back\\",
        "b\\'c",
        "[1]",
        "{x}",
        "null",
        "1",
        "1e-4",
        "true",
        "ä",
        "=",
        "",
    ],
)
def test_a_text_is_read_back_as_it_was(value: str) -> None:
    assert OverridesParser.create().parse_override(override_word("field", value)).value() == value


@pytest.mark.parametrize("value", [None, True, 3, 0.25, ["a", "b c", "1"], []])
def test_other_values_keep_their_type(value: Any) -> None:
    assert OverridesParser.create().parse_override(override_word("field", value)).value() == value
