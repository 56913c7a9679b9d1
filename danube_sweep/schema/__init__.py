"""The whole config space on one page: one dataclass per group option, every field with type, unit and default.

`conf/<group>/<option>.yaml` extends the class registered here as `schema/<group>/<option>` and states only what
makes that option that option. Nothing here imports torch, so `--help` and composing stay fast.
"""

from dataclasses import dataclass

from danube_sweep.schema.backbone import (
    Adalora,
    Adapter,
    Bias,
    ChatFormat,
    Compute,
    Dora,
    FullFinetune,
    Ia3,
    Init,
    LinearAdapter,
    Lora,
    Model,
    NoAdapter,
    Olora,
    Peft,
    Precision,
    Shape,
    Storage,
    Vera,
)
from danube_sweep.schema.fields import (
    nested,
    setting,
)
from danube_sweep.schema.running import (
    Device,
    NoTracking,
    Tracking,
    WandbTracking,
)
from danube_sweep.schema.sweeping import (
    Asha,
    Hyperband,
    Median,
    NoPruner,
    OnMisfit,
    OnOom,
    Patient,
    Pruner,
    Sampler,
    Sweep,
)
from danube_sweep.schema.task import (
    ArenaData,
    Batching,
    CausalHead,
    ClassifierHead,
    Data,
    FileData,
    GeneratedData,
    Head,
    LMHead,
    PairPooling,
    Pooling,
    PreferenceHead,
    SequenceHead,
    Side,
    TableData,
    TextData,
)
from danube_sweep.schema.training import (
    Adafactor,
    Adam,
    AdamW,
    AdamW8bit,
    AdEMAMix8bit,
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    Lion8bit,
    Muon,
    Optimizer,
    PagedAdamW8bit,
    PagedAdamW32bit,
    Schedule,
    Sgd,
    Trainer,
    Wsd,
)

__all__ = [
    "OPTIONS",
    "SWEEP_OPTIONS",
    "AdEMAMix8bit",
    "Adafactor",
    "Adalora",
    "Adam",
    "AdamW",
    "AdamW8bit",
    "Adapter",
    "ArenaData",
    "Asha",
    "Batching",
    "Bias",
    "CausalHead",
    "ChatFormat",
    "ClassifierHead",
    "Compute",
    "Config",
    "Constant",
    "Cosine",
    "Data",
    "Device",
    "Dora",
    "FileData",
    "FullFinetune",
    "GeneratedData",
    "Head",
    "Hyperband",
    "Ia3",
    "Init",
    "InverseSqrt",
    "LMHead",
    "Linear",
    "LinearAdapter",
    "Lion8bit",
    "Lora",
    "Median",
    "Model",
    "Muon",
    "NoAdapter",
    "NoPruner",
    "NoTracking",
    "Olora",
    "OnMisfit",
    "OnOom",
    "Optimizer",
    "PagedAdamW8bit",
    "PagedAdamW32bit",
    "PairPooling",
    "Patient",
    "Peft",
    "Pooling",
    "Precision",
    "PreferenceHead",
    "Pruner",
    "Sampler",
    "Schedule",
    "SequenceHead",
    "Settings",
    "Sgd",
    "Shape",
    "Side",
    "Storage",
    "Sweep",
    "TableData",
    "TextData",
    "Tracking",
    "Trainer",
    "Vera",
    "WandbTracking",
    "Wsd",
    "nested",
    "setting",
]


@dataclass
class Config:
    """One trial and the settings of its run."""

    seed: int = setting("seed of adapter, head and dropout", 0)
    name: str | None = setting("a name for people; not part of the trial", None)
    model: Model = setting("the backbone")
    precision: Precision = setting("storage and compute type")
    lora: Adapter = setting("what of the backbone trains")
    head: Head = setting("what turns hidden states into the answer")
    optimizer: Optimizer = setting("update rule")
    schedule: Schedule = setting("learning rate over time")
    data: Data = setting("task and files")
    trainer: Trainer = setting("steps, batches, validation")
    device: Device = setting("where it runs; not part of the trial")
    tracking: Tracking = setting("where it is logged; not part of the trial")


@dataclass
class Settings(Config):
    """The root of conf/config.yaml: a trial, the settings of its run, and those of the sweep around it."""

    sweep: Sweep = setting("how a sweep runs; not part of the trial")
    pruner: Pruner = setting("which trials of a sweep end early; not part of the trial")


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
    "head": {"sequence": SequenceHead, "preference": PreferenceHead, "causal": CausalHead, "lm": LMHead},
    "optimizer": {
        "adamw": AdamW,
        "adamw_8bit": AdamW8bit,
        "paged_adamw_8bit": PagedAdamW8bit,
        "paged_adamw_32bit": PagedAdamW32bit,
        "ademamix_8bit": AdEMAMix8bit,
        "lion_8bit": Lion8bit,
        "sgd": Sgd,
        "adafactor": Adafactor,
        "muon": Muon,
    },
    "schedule": {
        "linear": Linear,
        "cosine": Cosine,
        "constant": Constant,
        "inverse_sqrt": InverseSqrt,
        "wsd": Wsd,
    },
    "data": {"arena": ArenaData, "table": TableData, "text": TextData, "generated": GeneratedData},
    "trainer": {"trainer": Trainer},
    "device": {"device": Device},
    "tracking": {"wandb": WandbTracking, "none": NoTracking},
}
"""Config group -> option of its schema -> dataclass; groups whose options differ only in values have one."""

SWEEP_OPTIONS: dict[str, dict[str, type]] = {
    "sweep": {"sweep": Sweep},
    "pruner": {"none": NoPruner, "asha": Asha, "hyperband": Hyperband, "median": Median, "patient": Patient},
}
"""The same for what belongs to a sweep and to no trial."""
