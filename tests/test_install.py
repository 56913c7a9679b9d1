"""uv is told the settings of pip that decide where packages come from, or is not used."""

import pytest
from install import told

LISTED = """\
:env:.cert='/etc/ca.crt'
:env:.disable-pip-version-check='1'
:env:.find-links='/wheels /more'
global.extra-index-url='\\nfile:///one/simple\\nfile:///two/simple'
global.find-links='/hidden by the variable'
install.constraint='/etc/constraints.txt'
"""


def test_uv_is_told_what_pip_is_told() -> None:
    found = told(LISTED)
    assert found is not None
    arguments, variables = found
    pairs = sorted(zip(arguments[::2], arguments[1::2], strict=True))
    assert pairs == [
        ("--constraint", "/etc/constraints.txt"),
        ("--find-links", "/more"),
        ("--find-links", "/wheels"),
        ("--index", "file:///one/simple"),
        ("--index", "file:///two/simple"),
    ]
    assert variables == {"SSL_CERT_FILE": "/etc/ca.crt"}
    assert told("") == ([], {})
    assert told("global.no-index='true'\n") == (["--no-index"], {})


@pytest.mark.parametrize("setting", ["global.no-binary=':all:'", "install.target='/elsewhere'", ":env:.pre='1'"])
def test_with_a_setting_that_uv_cannot_be_told_pip_installs(setting: str) -> None:
    assert told(f"{LISTED}{setting}\n") is None
