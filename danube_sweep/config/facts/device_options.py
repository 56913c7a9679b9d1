"""The packaged options of the group `device`, as far as a check needs them."""

from functools import lru_cache

from danube_sweep import paths


def accelerator_of(name: str) -> str | None:
    """The device.accelerator of the packaged option that has this device.name; None if none has it."""
    return _accelerators().get(name)


@lru_cache(maxsize=1)
def _accelerators() -> dict[str, str]:
    # Plain lines are enough, and a tenth of the time that YAML takes: every run that names its device asks.
    found: dict[str, str] = {}
    for file in sorted((paths.conf_dir() / "device").glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        if "name" in fields:
            found[fields["name"]] = fields["accelerator"]
    return found
