"""The whole config space on one page: one dataclass per group option, every field with type, unit and default.

`conf/<group>/<option>.yaml` extends the class registered here as `schema/<group>/<option>` and states only what
makes that option that option. Nothing here imports torch, so `--help` and composing stay fast.
"""

from dataclasses import dataclass

from danube_sweep.config.schema.backbone_fields import (
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
from danube_sweep.config.schema.fields import nested, path_fields, setting
from danube_sweep.config.schema.run_fields import Device, NoTracking, Tracking, WandbTracking
from danube_sweep.config.schema.sweep_fields import (
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
from danube_sweep.config.schema.task_fields import (
    HIGHER_IS_BETTER,
    METRICS,
    AnswerPooling,
    ArenaData,
    Batching,
    BradleyTerryHead,
    CausalHead,
    ClassifierHead,
    Comparison,
    Data,
    FileData,
    GeneratedData,
    Head,
    HubData,
    LayeredHead,
    LMHead,
    MultilabelHead,
    OrdinalHead,
    PairPooling,
    PairsData,
    Pooling,
    PreferenceHead,
    RegressionHead,
    RegressionLoss,
    SequenceHead,
    Side,
    TableColumns,
    TableData,
    Target,
    TextData,
    Ties,
    TokenHead,
    TokensData,
    own_parts,
)
from danube_sweep.config.schema.training_fields import (
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
    ScheduleFree,
    Sgd,
    Trainer,
    Wsd,
)

__all__ = [
    "HIGHER_IS_BETTER",
    "METRICS",
    "OPTIONS",
    "SWEEP_OPTIONS",
    "AdEMAMix8bit",
    "Adafactor",
    "Adalora",
    "Adam",
    "AdamW",
    "AdamW8bit",
    "Adapter",
    "AnswerPooling",
    "ArenaData",
    "Asha",
    "Batching",
    "Bias",
    "BradleyTerryHead",
    "CausalHead",
    "ChatFormat",
    "ClassifierHead",
    "Comparison",
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
    "HubData",
    "Hyperband",
    "Ia3",
    "Init",
    "InverseSqrt",
    "LMHead",
    "LayeredHead",
    "Linear",
    "LinearAdapter",
    "Lion8bit",
    "Lora",
    "Median",
    "Model",
    "MultilabelHead",
    "Muon",
    "NoAdapter",
    "NoPruner",
    "NoTracking",
    "Olora",
    "OnMisfit",
    "OnOom",
    "Optimizer",
    "OrdinalHead",
    "PagedAdamW8bit",
    "PagedAdamW32bit",
    "PairPooling",
    "PairsData",
    "Patient",
    "Peft",
    "Pooling",
    "Precision",
    "PreferenceHead",
    "Pruner",
    "RegressionHead",
    "RegressionLoss",
    "Sampler",
    "Schedule",
    "ScheduleFree",
    "SequenceHead",
    "Settings",
    "Sgd",
    "Shape",
    "Side",
    "Storage",
    "Sweep",
    "TableColumns",
    "TableData",
    "Target",
    "TextData",
    "Ties",
    "TokenHead",
    "TokensData",
    "Tracking",
    "Trainer",
    "Vera",
    "WandbTracking",
    "Wsd",
    "nested",
    "own_parts",
    "path_fields",
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

    @property
    def objective(self) -> str:
        """The validation metric by which the best step is chosen."""
        return self.trainer.best_by or self.head.metrics[0]


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
    "head": {
        "sequence": SequenceHead,
        "preference": PreferenceHead,
        "bradley_terry_ties": BradleyTerryHead,
        "ordinal": OrdinalHead,
        "regression": RegressionHead,
        "multilabel": MultilabelHead,
        "token": TokenHead,
        "causal": CausalHead,
        "lm": LMHead,
    },
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
        "schedulefree": ScheduleFree,
    },
    "schedule": {
        "linear": Linear,
        "cosine": Cosine,
        "constant": Constant,
        "inverse_sqrt": InverseSqrt,
        "wsd": Wsd,
    },
    "data": {
        "arena": ArenaData,
        "pairs": PairsData,
        "table": TableData,
        "tokens": TokensData,
        "hub": HubData,
        "text": TextData,
        "generated": GeneratedData,
    },
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
