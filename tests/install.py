"""Installs the project and its tests into this environment with uv, in a quarter of pip's time.

uv does not read pip's settings, so it is told those that decide where packages come from. With a setting that is not
known here, and wherever uv fails, pip installs.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

WHAT = ["--constraint", "constraints.txt", "--editable", ".[dev]"]
ARGUMENTS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
}
"""Settings that are a list of words, and uv's argument for each word."""
VARIABLES = {
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}
"""Settings that uv reads in a variable."""
OF_PIP_ALONE = {
    *("disable-pip-version-check", "no-cache-dir", "cache-dir", "progress-bar", "quiet", "verbose", "no-color"),
    *("no-input", "root-user-action", "require-virtualenv", "no-warn-script-location", "retries"),
}
"""Settings that do not decide what is installed."""
ORDER = (":env:", "install", "global")
"""Sections of pip's settings, the one that counts first."""


def told(listed: str) -> tuple[list[str], dict[str, str]] | None:
    """uv's arguments and variables for the settings that `pip config list` prints; None if it lacks one."""
    found: dict[str, str] = {}
    lines = [line.partition("=") for line in listed.splitlines() if "=" in line]
    for section in reversed(ORDER):
        named = {name.removeprefix(f"{section}."): value for name, _, value in lines if name.startswith(f"{section}.")}
        found |= {name: str(ast.literal_eval(value)) for name, value in named.items()}
    arguments, variables = list[str](), dict[str, str]()
    for name, value in found.items():
        if name in ARGUMENTS:
            arguments += [part for word in value.split() for part in (ARGUMENTS[name], word)]
        elif name in VARIABLES:
            variables[VARIABLES[name]] = value
        elif name == "no-index" and value.lower() in ("1", "true", "yes", "on"):
            arguments.append("--no-index")
        elif name not in OF_PIP_ALONE:
            return None
    return arguments, variables


def run(module: str, words: Sequence[str], variables: Mapping[str, str]) -> int:
    return subprocess.run([sys.executable, "-m", module, *words], env={**os.environ, **variables}).returncode


def main() -> int:
    pip = [sys.executable, "-m", "pip"]
    listed = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True).stdout
    as_pip = told(listed)
    # pip takes the best version of all indexes; uv alone would take the first index that has any.
    words = ["pip", "install", "--quiet", "--python", sys.executable, "--index-strategy", "unsafe-best-match"]
    if (
        as_pip is not None
        and run("pip", ["install", "--quiet", "--constraint", "constraints.txt", "uv"], {}) == 0
        and run("uv", [*words, *as_pip[0], *WHAT], as_pip[1]) == 0
    ):
        return 0
    print("uv cannot install this as pip would, so pip does: it takes longer", file=sys.stderr)
    return run("pip", ["install", "--quiet", *WHAT], {})


if __name__ == "__main__":
    sys.exit(main())
