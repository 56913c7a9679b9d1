"""The config space: every field with its type, unit and default, declared once. No torch, so that --help stays fast.

Heads, kinds of data and optimizers declare their own fields in head/kinds, data/kinds and optimizer/kinds; what they
share is here. config/options.py lists the options of every group. `conf/<group>/<option>.yaml` extends the dataclass
of its option and states only the differences from it.
"""

from dataclasses import dataclass

from danube_sweep.config.schema.backbone_fields import (
    Adalora,
    Adapter,
    Bias,
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
from danube_sweep.config.schema.data_fields import (
    Batching,
    Columns,
    Comparison,
    Data,
    ExtraRows,
    FileData,
    GroupBy,
    Labelled,
    RowLayout,
    Side,
    TableColumns,
)
from danube_sweep.config.schema.fields import nested, path_fields, setting
from danube_sweep.config.schema.head_fields import (
    HIGHER_IS_BETTER,
    ClassifierHead,
    Head,
    LayeredHead,
    Pooling,
    Target,
    objective,
)
from danube_sweep.config.schema.optimizer_fields import Adam, Optimizer
from danube_sweep.config.schema.run_fields import (
    Device,
    NoTracking,
    Places,
    TensorboardTracking,
    Tracking,
    WandbTracking,
)
from danube_sweep.config.schema.sweep_fields import (
    Asha,
    Baseline,
    Confirm,
    Hyperband,
    Lock,
    Median,
    NoPruner,
    OnMisfit,
    OnOom,
    Patient,
    Pruner,
    Sampler,
    Sweep,
    WandbHyperband,
)
from danube_sweep.config.schema.training_fields import (
    SCHEDULES,
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    Schedule,
    Trainer,
    Wsd,
    schedule_name,
)

__all__ = [
    "HIGHER_IS_BETTER",
    "SCHEDULES",
    "Adalora",
    "Adam",
    "Adapter",
    "Asha",
    "Baseline",
    "Batching",
    "Bias",
    "ClassifierHead",
    "Columns",
    "Comparison",
    "Compute",
    "Config",
    "Confirm",
    "Constant",
    "Cosine",
    "Data",
    "Device",
    "Dora",
    "ExtraRows",
    "FileData",
    "FullFinetune",
    "GroupBy",
    "Head",
    "Hyperband",
    "Ia3",
    "Init",
    "InverseSqrt",
    "Labelled",
    "LayeredHead",
    "Linear",
    "LinearAdapter",
    "Lock",
    "Lora",
    "Median",
    "Model",
    "NoAdapter",
    "NoPruner",
    "NoTracking",
    "Olora",
    "OnMisfit",
    "OnOom",
    "Optimizer",
    "Patient",
    "Peft",
    "Places",
    "Pooling",
    "Precision",
    "Pruner",
    "RowLayout",
    "Sampler",
    "Schedule",
    "Settings",
    "Shape",
    "Side",
    "Storage",
    "Sweep",
    "TableColumns",
    "Target",
    "TensorboardTracking",
    "Tracking",
    "Trainer",
    "Vera",
    "WandbHyperband",
    "WandbTracking",
    "Wsd",
    "nested",
    "objective",
    "path_fields",
    "schedule_name",
    "setting",
]


@dataclass
class Config:
    """One trial and the settings of its run."""

    seed: int = setting("seed of adapter, head and dropout, and of the order of rows if data.order_seed is null", 0)
    name: str | None = setting("a display name; not part of the trial", None)
    model: Model = setting("the backbone")
    precision: Precision = setting("storage and compute type")
    lora: Adapter = setting("which part of the backbone trains")
    head: Head = setting("the network that turns hidden states into the answer")
    optimizer: Optimizer = setting("update rule")
    schedule: Schedule = setting("learning rate over time")
    data: Data = setting("task and files")
    trainer: Trainer = setting("steps, batches, validation")
    device: Device = setting("the machine of the run; not part of the trial")
    tracking: Tracking = setting("logging of the run; not part of the trial")
    storage: Places = setting("places of files outside the run's folder; not part of the trial")

    @property
    def order_seed(self) -> int:
        """The seed of the order of the training rows."""
        return self.seed if self.data.order_seed is None else self.data.order_seed

    @property
    def objective(self) -> str:
        """The validation metric by which the best step is chosen."""
        return objective(self.head.target, self.trainer.best_by)


@dataclass
class Settings(Config):
    """The root of conf/config.yaml: a trial, the settings of its run, and those of the sweep around it."""

    sweep: Sweep = setting("how a sweep runs; not part of the trial")
    pruner: Pruner = setting("which trials of a sweep end early; not part of the trial")
