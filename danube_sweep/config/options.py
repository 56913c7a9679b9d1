"""Every config group's options, by name: the dataclass that `conf/<group>/<option>.yaml` extends.

A head, a kind of data or an optimizer is an option because its file is there: `<group>/kinds/<option>.py` ends by
naming its dataclass, `OPTION`. They are found by their files, so that adding one changes no other file.
"""

from importlib import import_module
from pkgutil import iter_modules

from danube_sweep.config.schema import (
    SCHEDULES,
    Adalora,
    Asha,
    Device,
    Dora,
    FullFinetune,
    Hyperband,
    Ia3,
    Lora,
    Median,
    Model,
    NoAdapter,
    NoPruner,
    NoTracking,
    Olora,
    Patient,
    Peft,
    Places,
    Precision,
    Sweep,
    TensorboardTracking,
    Trainer,
    Vera,
    WandbHyperband,
    WandbTracking,
)
from danube_sweep.errors import GuardError


def _kinds(group: str) -> dict[str, type]:
    folder = import_module(f"danube_sweep.{group}.kinds")
    names = sorted(module.name for module in iter_modules(folder.__path__))
    found = {name: getattr(import_module(f"{folder.__name__}.{name}"), "OPTION", None) for name in names}
    for name, option in found.items():
        if option is None:
            raise GuardError(f"{group}/kinds/{name}.py names no dataclass as OPTION")
    return {name: option for name, option in found.items() if option is not None}


OPTIONS: dict[str, dict[str, type]] = {
    "model": {"model": Model},
    "precision": {"precision": Precision},
    "lora": {
        "lora": Lora,
        "dora": Dora,
        "olora": Olora,
        "adalora": Adalora,
        "ia3": Ia3,
        "vera": Vera,
        "peft": Peft,
        "none": NoAdapter,
        "full": FullFinetune,
    },
    "head": _kinds("head"),
    "optimizer": _kinds("optimizer"),
    "schedule": {**SCHEDULES},
    "data": _kinds("data"),
    "trainer": {"trainer": Trainer},
    "device": {"device": Device},
    "tracking": {"wandb": WandbTracking, "tensorboard": TensorboardTracking, "none": NoTracking},
    "storage": {"storage": Places},
}
"""Config group -> option -> dataclass; groups whose options differ only in values have one."""

SWEEP_OPTIONS: dict[str, dict[str, type]] = {
    "sweep": {"sweep": Sweep},
    "pruner": {
        "none": NoPruner,
        "asha": Asha,
        "hyperband": Hyperband,
        "median": Median,
        "patient": Patient,
        "wandb_hyperband": WandbHyperband,
    },
}
"""The same for settings of a sweep, which are not part of a trial."""
