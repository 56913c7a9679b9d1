"""URLs where a file or a folder of this machine belongs."""

import re
from typing import Final

from danube_sweep.errors import ConfigError

_URL: Final = re.compile(r"([A-Za-z][\w+.-]+)://(.*)", re.S)
_HUB: Final = re.compile(r"(?:www\.)?(?:huggingface\.co|hf\.co)/")
_NAME: Final = re.compile(r"(?:datasets/|models/)?([\w.-]+/[\w.-]+)(?:/.*)?")


def refuse_url(text: str, field: str = "") -> None:
    """Raises ConfigError for a URL, with the way out: its path, the hub's name for it, or a download.

    `field`: the name of the option that has it, if it has one.
    """
    match = _URL.fullmatch(text)
    if match is None:
        return
    given, scheme, rest = f"{field}=" if field else "", match[1].lower(), match[2]
    on_the_hub = scheme == "hf" or _HUB.match(rest) is not None
    if scheme == "file":
        way_out = f"give the path alone: {given}{rest}"
    elif on_the_hub and (named := _NAME.fullmatch(_HUB.sub("", rest, count=1))) is not None:
        way_out = f"give the hub's name: {given}{named[1]}"
    else:
        way_out = "download it, or give a path of this machine"
    raise ConfigError(f"{given}{text}: no URL is read or written here; {way_out}")
