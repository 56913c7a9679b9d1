"""Which option of `conf/model` a published model is, from the options' own files."""

import re
from functools import cache
from typing import Any

import yaml

from danube_sweep import paths

_IF_CHAT = re.compile(r"\$\{if_chat:\$\{\.variant\},([^}]*)\}")


@cache
def _published() -> dict[str, str]:
    # Lower-case hub name -> the overrides that choose it.
    found: dict[str, str] = {}
    for file in sorted((paths.conf_dir() / "model").glob("*.yaml")):
        option: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        usual = option.get("variant", "base")
        for variant in option.get("variants", [usual]):
            suffix = r"\1" if variant == "chat" else ""
            name = _IF_CHAT.sub(suffix, option.get("path") or "").replace("${.variant}", variant)
            chosen = f"model={file.stem}" + (f" model.variant={variant}" if variant != usual else "")
            found.setdefault(name.lower(), chosen)
    return found


def named_option(path: str) -> str | None:
    """The overrides that choose a published model, like `model=danube3_500m model.variant=chat`; None for others."""
    return _published().get(path.lower())


def how_to_choose(value: str) -> str:
    """How to write the model that somebody named by a hub name or a folder, `model=h2oai/…`."""
    named = named_option(value)
    if named is not None:
        return f"model={value} is an option here; write {named}"
    return f"model={value}: no such option; for a folder or a hub model, write model=auto model.path={value}"
