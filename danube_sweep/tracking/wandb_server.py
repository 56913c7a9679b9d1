"""W&B's server, as far as it can be known without a request: a key for it, an address, and who chose it."""

import os
import re
import socket
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from danube_sweep.tracking.wandb_sending import reason

_UNKNOWN_HOST: Final = re.compile(r"\blookup ([\w.-]+?)(?: on \S+)?: ")
"""How wandb's service process puts a name without an address."""


def server_problem(timeout_s: float) -> str | None:
    """Why the server cannot be asked from here: no key, no address for its name, nobody at the address; None if it can.

    Waits `timeout_s` at most for an address to answer. Does not log in, and sends nothing.
    """
    from wandb.sdk.wandb_setup import singleton  # wandb.setup starts a service process, which all children would share

    settings = singleton().settings
    url = settings.base_url
    if (problem := key_problem(url)) is not None:
        return f"{problem}: run `wandb login` or set WANDB_API_KEY"
    if settings.http_proxy or settings.https_proxy:  # the proxy knows the name, if anybody does
        return None
    return _address_problem(url, timeout_s)


def key_problem(base_url: str) -> str | None:
    """Why there is no key for the server; None if there is one."""
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    try:
        if wbauth.authenticate_session(host=base_url, source="", prompt=False, update_session=False):
            return None
        return f"there is no API key for {base_url} ({where_named(base_url)})"
    except AuthenticationError as error:
        return reason(error).rstrip(".")


def unreached(base_url: str, said: str) -> str:
    """Why the server is not reached; a name that nobody knows, with who chose it."""
    unknown = _UNKNOWN_HOST.search(said)
    return said if unknown is None else _unknown(base_url, unknown[1])


def where_named(base_url: str) -> str:
    """Who chose the server, whose name a user may never have seen."""
    import wandb

    if os.environ.get("WANDB_BASE_URL"):
        return "from WANDB_BASE_URL"
    if base_url == wandb.Settings.model_fields["base_url"].default:
        return f"the default server of wandb {wandb.__version__}; WANDB_BASE_URL names another"
    return "from W&B's settings file; WANDB_BASE_URL names another"


def _address_problem(base_url: str, timeout_s: float) -> str | None:
    parts = urlsplit(base_url)
    host, port = str(parts.hostname), parts.port or (80 if parts.scheme == "http" else 443)
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return None
    try:
        socket.create_connection((host, port), timeout_s).close()
    except socket.gaierror:
        return _unknown(base_url, host)
    except OSError as error:
        return f"{host} does not answer at port {port} ({where_named(base_url)}): {error.strerror or error}"
    return None


def _unknown(base_url: str, host: str) -> str:
    chosen = f" ({where_named(base_url)})" if host in base_url else ""
    return f"no address is known for {host}{chosen}: check the network and the name"
