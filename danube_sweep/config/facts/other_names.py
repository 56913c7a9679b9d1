"""Names that other tools have for our fields and options, and our words for them.

Those of transformers' TrainingArguments, PEFT's LoraConfig, TRL, bitsandbytes, Axolotl, LLaMA-Factory, Ludwig and the
Lightning-Hydra template. In our text, `{value}` is replaced by the given value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class OurWords:
    """The override for another tool's name; `write` is empty if none is needed."""

    write: str
    note: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    """Overrides for certain values, instead of `write`."""


_FALSE_OF_PRECISION = {"false": "precision=fp32"}
_FOUR_BIT = OurWords("precision=nf4", values=_FALSE_OF_PRECISION)
_STORAGE = {
    **dict.fromkeys(("int4", "4bit", "4-bit", "q4", "4", "qlora", "bnb4"), "precision=nf4"),
    **dict.fromkeys(("8bit", "8-bit", "q8", "8"), "precision=int8"),
    **dict.fromkeys(("bfloat16", "bf16-mixed", "bf16-true", "torch.bfloat16"), "precision=bf16"),
    **dict.fromkeys(("float16", "half", "16bit", "16", "16-mixed", "16-true", "torch.float16"), "precision=fp16"),
    **dict.fromkeys(("float32", "full", "32bit", "32", "32-true", "no", "torch.float32"), "precision=fp32"),
}
_PRECISION = OurWords("precision={value}", values=_STORAGE)
_PEFT = ("oft", "boft", "loha", "lokr", "hra", "vblora", "bone", "fourierft", "shira", "c3a")
_OFF = ("null", "off", "no", "false", "disabled")
_ADAPTERS = {
    **dict.fromkeys(_OFF, "lora=none"),
    "qlora": "precision=nf4 lora=lora",
    "rslora": "lora.rslora=true",
    **dict.fromkeys(("lora_plus", "loraplus", "lora+"), "lora.plus_ratio=16"),
    **dict.fromkeys(("freeze", "frozen", "head", "linear_probe"), "lora=none"),
    **dict.fromkeys(("full_finetune", "finetune", "all"), "lora=full"),
    **{name: f"lora=peft lora.type={name}" for name in _PEFT},
}
_ADAPTER = OurWords("lora={value}", values=_ADAPTERS)
_OPTIMIZERS = {
    **dict.fromkeys(("adam", "adamw_torch", "adamw_torch_fused", "adamw_hf"), "optimizer=adamw"),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw8bit", "adam8bit"), "optimizer=adamw_8bit"),
    **dict.fromkeys(("paged_adamw", "paged_adamw32bit"), "optimizer=paged_adamw_32bit"),
    **dict.fromkeys(("lion", "lion8bit"), "optimizer=lion_8bit"),
    **dict.fromkeys(("ademamix", "ademamix8bit"), "optimizer=ademamix_8bit"),
    **dict.fromkeys(("schedule_free", "schedule_free_adamw", "adamw_schedulefree"), "optimizer=schedulefree"),
}
_OPTIMIZER = OurWords("optimizer={value}", values=_OPTIMIZERS)
_SCHEDULES = {
    **dict.fromkeys(("constant_with_warmup", "none"), "schedule=constant"),
    **dict.fromkeys(("warmup_stable_decay", "trapezoid"), "schedule=wsd"),
    **dict.fromkeys(("cosine_with_restarts", "cosine_annealing", "cosine_with_warmup"), "schedule=cosine"),
    **dict.fromkeys(("polynomial", "linear_with_warmup"), "schedule=linear"),
}
_SCHEDULE = OurWords("schedule={value}", values=_SCHEDULES)
_HEADS = {
    **dict.fromkeys(
        ("classification", "classifier", "seq_cls", "sequence_classification", "text_classification"), "head=sequence"
    ),
    **dict.fromkeys(("token_classification", "token_cls", "ner", "tagging"), "head=token"),
    **dict.fromkeys(("reward", "reward_model", "rm", "pairwise", "pair"), "head=preference"),
    **dict.fromkeys(("bradley_terry", "bt"), "head=bradley_terry_ties"),
    **dict.fromkeys(("causal_lm", "language_model", "pretraining", "clm", "sft"), "head=lm"),
    **dict.fromkeys(("multi_label", "multilabel_classification"), "head=multilabel"),
    **dict.fromkeys(("regressor", "score", "number"), "head=regression"),
    **dict.fromkeys(("coral", "ordinal_regression"), "head=ordinal"),
}
_HEAD = OurWords("head={value}", values=_HEADS)
_TRACKERS = {
    **dict.fromkeys(("csv", "mlflow", "comet", "neptune", "trackio", "all"), "tracking=none"),
    **dict.fromkeys(("tb", "tensorboardx"), "tracking=tensorboard"),
    **dict.fromkeys(_OFF, "tracking=none"),
    **dict.fromkeys(("wandb_offline", "weights_and_biases"), "tracking=wandb"),
}
_TRACKER = OurWords("tracking={value}", "metrics.csv is always written", _TRACKERS)
_DATA = {
    **dict.fromkeys(("csv", "json", "jsonl", "parquet", "classification"), "data=table"),
    **dict.fromkeys(("hf", "huggingface", "datasets"), "data=hub"),
    **dict.fromkeys(("ner", "conll", "bio"), "data=tokens"),
    **dict.fromkeys(("lmsys", "chatbot_arena"), "data=arena"),
    **dict.fromkeys(("preference", "dpo", "pairwise", "comparisons"), "data=pairs"),
    **dict.fromkeys(("txt", "raw", "corpus", "pretraining"), "data=text"),
    **dict.fromkeys(("synthetic", "dummy", "demo"), "data=generated"),
}
_DEVICES = {
    "0": "device=cuda:0",
    "nvidia": "device=cuda",
    "metal": "device=mps",
    **dict.fromkeys(("t4", "kaggle", "colab"), "device=kaggle_t4"),
    **dict.fromkeys(("2xt4", "t4x2"), "device=kaggle_t4x2"),
    "p100": "device=kaggle_p100",
    **{name: f"device=rtx{name}" for name in ("3090", "4090", "5090")},
    "a100": "device=a100_40gb",
}
_PRUNERS = {
    **dict.fromkeys(_OFF, "pruner=none"),
    **dict.fromkeys(("sha", "successive_halving"), "pruner=asha"),
    **dict.fromkeys(("percentile", "median_stopping"), "pruner=median"),
    "early_stopping": "trainer.patience=3",
}

OPTION_NAMES: dict[str, Mapping[str, str]] = {
    "precision": _STORAGE,
    "lora": _ADAPTERS,
    "head": _HEADS,
    "optimizer": _OPTIMIZERS,
    "schedule": _SCHEDULES,
    "tracking": _TRACKERS,
    "data": _DATA,
    "device": _DEVICES,
    "pruner": _PRUNERS,
}
"""Config group -> another tool's option -> our override."""

_ROWS_PER_PASS = OurWords(
    "trainer.micro_batch={value}", "rows per forward pass; rows per optimizer step are trainer.effective_batch"
)
_STEP_ROWS = OurWords(
    "trainer.effective_batch=…", "rows per optimizer step: trainer.micro_batch times the passes to accumulate"
)
_WARMUP_STEPS = OurWords("schedule.warmup=…", "a share of all steps, 0 to 1")
_LENGTH = OurWords("data.max_length={value}")
_MODEL = OurWords("model=auto model.path={value}", "or a named model: danube-sweep --help lists them")
_FILE = OurWords("data=table data.path={value}", "or another kind of data: arena, pairs, tokens, text, hub")
_FOLDER = OurWords("hydra.run.dir={value}", "of a sweep hydra.sweep.dir")
_CLASSES = OurWords("", "classes are read from the data; data.classes=[…] sets their order")
_CHECKPOINTS = OurWords("", "a checkpoint is kept at every validation, trainer.validate_every=STEPS")
_EPOCHS = OurWords("trainer.epochs={value}")
_VALIDATE = OurWords("trainer.validate_every={value}", "steps between validations")
_RANKS = "GPUs that train each trial together, all with whole weights; by default a sweep trains a trial on each"
_SEVERAL_GPUS = OurWords("device.count=…", _RANKS)
_GPU_COUNT = OurWords("device.count={value}", _RANKS, {"auto": "device.count=all", "-1": "device.count=all"})
_SHARDED = OurWords("device.count=N device.sharding=full", "N GPUs divide the weights of the backbone (FSDP)")

_FIELDS: dict[tuple[str, ...], OurWords] = {
    # the adapter
    ("r", "lora_r", "lora_rank", "adapter_rank"): OurWords("lora.rank={value}"),
    ("lora_alpha", "adapter_alpha"): OurWords("lora.alpha={value}"),
    ("lora_dropout",): OurWords("lora.dropout={value}"),
    ("lora_bias",): OurWords("lora.bias={value}"),
    ("use_rslora",): OurWords("lora.rslora={value}"),
    ("use_dora", "peft_use_dora"): OurWords("lora=dora", values={"false": "lora=lora"}),
    ("loraplus_lr_ratio",): OurWords("lora.plus_ratio={value}"),
    ("target_modules", "lora_target_modules", "lora_target", "lora_targets"): OurWords(
        "lora.targets={value}",
        values=dict.fromkeys(("all-linear", "all", "all_linear_layers"), "lora.targets=all_linear"),
    ),
    ("lora_target_linear",): OurWords("lora.targets=all_linear", values={"false": "lora.targets=attention"}),
    ("layers_to_transform", "lora_layers_to_transform"): OurWords("lora.layers={value}"),
    ("adapter", "peft", "peft_type", "peft_method", "finetuning_type", "use_peft"): OurWords(
        "lora={value}", values={**_ADAPTERS, "true": "lora=lora", "false": "lora=full"}
    ),
    # storage and arithmetic
    ("load_in_4bit", "use_4bit", "4bit", "qlora", "int4", "bnb_4bit_quant_type"): OurWords(
        "precision=nf4", values={**_FALSE_OF_PRECISION, "fp4": "precision=fp4"}
    ),
    ("bnb_4bit_use_double_quant", "use_nested_quant", "double_quantization"): OurWords(
        "precision.double_quant={value}"
    ),
    ("load_in_8bit", "use_8bit", "8bit", "int8"): OurWords("precision=int8", values=_FALSE_OF_PRECISION),
    ("bf16", "bfloat16", "bf16_full_eval"): OurWords("precision=bf16", values=_FALSE_OF_PRECISION),
    ("fp16", "half", "float16"): OurWords("precision=fp16", values=_FALSE_OF_PRECISION),
    ("torch_dtype", "dtype", "mixed_precision", "quantization", "quantization_bit", "quantize"): _PRECISION,
    ("bnb_4bit_compute_dtype", "compute_dtype"): OurWords(
        "precision.compute={value}", values={"bfloat16": "precision.compute=bf16", "float16": "precision.compute=fp16"}
    ),
    ("gradient_checkpointing", "use_gradient_checkpointing", "activation_checkpointing"): OurWords(
        "precision.gradient_checkpointing={value}"
    ),
    # the optimizer and the schedule
    ("lr", "learning_rate", "base_lr", "max_lr", "peak_lr", "base_learning_rate"): OurWords("optimizer.lr={value}"),
    ("head_lr", "classifier_lr", "lr_head"): OurWords("head.lr={value}"),
    ("weight_decay", "wd"): OurWords("optimizer.weight_decay={value}"),
    ("adam_beta1",): OurWords("optimizer.beta1={value}"),
    ("adam_beta2",): OurWords("optimizer.beta2={value}"),
    ("betas",): OurWords("optimizer.beta1=… optimizer.beta2=…"),
    ("adam_epsilon", "adam_eps", "epsilon"): OurWords("optimizer.eps={value}"),
    ("optim", "optimizer_type", "optimizer_name"): _OPTIMIZER,
    ("lr_scheduler_type", "lr_scheduler", "scheduler", "scheduler_type", "lr_schedule"): _SCHEDULE,
    ("warmup_ratio", "warmup_fraction", "warmup_proportion"): OurWords("schedule.warmup={value}"),
    ("warmup_steps", "num_warmup_steps", "lr_warmup_steps"): _WARMUP_STEPS,
    ("max_grad_norm", "gradient_clip_val", "gradient_clipping", "grad_clip", "clip_grad_norm"): OurWords(
        "trainer.clip_norm={value}"
    ),
    ("label_smoothing_factor",): OurWords("head.label_smoothing={value}"),
    # steps and batches
    ("epochs", "num_train_epochs", "num_epochs", "max_epochs", "n_epochs", "train_epochs", "epoch"): _EPOCHS,
    ("max_train_steps", "train_steps", "num_steps", "num_train_steps", "total_steps"): OurWords(
        "trainer.max_steps={value}"
    ),
    ("batch_size", "per_device_train_batch_size", "train_batch_size", "micro_batch_size", "bs"): _ROWS_PER_PASS,
    ("per_device_eval_batch_size", "eval_batch_size", "val_batch_size"): OurWords("trainer.eval_batch={value}"),
    ("gradient_accumulation_steps", "accumulate_grad_batches", "grad_accum", "grad_accumulation_steps"): _STEP_ROWS,
    ("global_batch_size", "total_batch_size", "effective_batch_size"): OurWords("trainer.effective_batch={value}"),
    ("eval_steps", "eval_every", "val_check_interval", "evaluation_steps", "val_interval"): _VALIDATE,
    ("eval_strategy", "evaluation_strategy", "check_val_every_n_epoch"): OurWords(
        "trainer.validate_every=…", "steps between validations; null gives five validations per run"
    ),
    ("logging_steps", "log_every_n_steps", "log_interval"): OurWords("trainer.log_every={value}"),
    ("save_steps", "save_strategy", "save_total_limit", "save_every", "checkpoint_interval"): _CHECKPOINTS,
    ("early_stopping_patience", "early_stopping"): OurWords("trainer.patience={value}"),
    ("metric_for_best_model", "monitor"): OurWords("trainer.best_by={value}"),
    ("load_best_model_at_end",): OurWords("", "the best step is always kept"),
    ("group_by_length", "length_grouped"): OurWords(
        "data.batching=bucketed", values={"false": "data.batching=shuffled"}
    ),
    ("packing", "sample_packing"): OurWords("data.batching=packed", values={"false": "data.batching=bucketed"}),
    ("random_seed", "random_state", "train_seed"): OurWords("seed={value}"),
    ("data_seed",): OurWords("data.order_seed={value}"),
    # the data
    ("max_seq_length", "max_seq_len", "model_max_length", "seq_length", "seq_len", "sequence_len"): _LENGTH,
    ("max_len", "cutoff_len", "block_size", "context_length", "sequence_length", "max_tokens"): _LENGTH,
    ("train_file", "train_path", "data_path", "dataset_path", "data_files", "train_data", "training_file"): _FILE,
    ("validation_file", "val_file", "val_path", "eval_file", "val_data"): OurWords("data.validation_path={value}"),
    ("test_file", "test_data"): OurWords("data.test_path={value}"),
    ("dataset", "dataset_name", "dataset_id"): OurWords("data=hub data.path={value}"),
    ("dataset_text_field", "text_field", "text_col", "text"): OurWords("data.text_column={value}"),
    ("label_field", "target_column", "label_col", "label", "target", "answer_column"): OurWords(
        "data.label_column={value}"
    ),
    ("max_train_samples", "max_samples", "limit_train_batches"): OurWords("data.max_rows={value}"),
    ("val_size", "val_set_size", "test_size", "val_split", "validation_size"): OurWords(
        "data.validation_fraction={value}"
    ),
    ("num_folds", "n_folds", "n_splits", "k_folds"): OurWords("data.folds={value}"),
    ("truncation_side",): OurWords("data.truncation={value}"),
    ("num_labels", "num_classes", "n_classes"): _CLASSES,
    ("padding_side", "pad_to_max_length", "padding"): OurWords(
        "", "padding does not change answers here, so there is no setting for it"
    ),
    # the model
    ("model_name_or_path", "base_model", "model_name", "model_id", "pretrained_model_name_or_path"): _MODEL,
    ("model_path", "checkpoint", "pretrained_model"): _MODEL,
    ("model_revision",): OurWords("model.revision={value}"),
    ("pooling", "pooling_type"): OurWords("head.pooling={value}"),
    ("task", "task_type", "problem_type"): _HEAD,
    # where it runs and where it is logged
    ("accelerator", "use_cuda", "use_cpu", "no_cuda"): OurWords(
        "device.accelerator={value}",
        "device.count=N for several GPUs",
        {**dict.fromkeys(("true", "false"), "device.accelerator=auto"), "gpu": "device.accelerator=cuda"},
    ),
    ("devices", "num_gpus", "n_gpu", "gpus", "num_processes", "nproc_per_node", "world_size"): _GPU_COUNT,
    ("strategy", "distributed", "ddp", "num_nodes"): _SEVERAL_GPUS,
    ("deepspeed", "fsdp", "fsdp_config", "sharding"): _SHARDED,
    ("output_dir", "out_dir", "save_dir", "output_path", "default_root_dir", "log_dir"): _FOLDER,
    ("run_name", "task_name", "experiment_name", "exp_name"): OurWords("name={value}"),
    ("report_to", "logger", "log_with", "logging"): _TRACKER,
    ("wandb", "use_wandb"): OurWords("tracking=wandb", values=dict.fromkeys((*_OFF, "none"), "tracking=none")),
    ("wandb_project", "wandb.project", "logger.wandb.project", "project", "project_name"): OurWords(
        "tracking.project={value}"
    ),
    ("wandb_entity", "wandb.entity", "entity", "wandb_team"): OurWords("tracking.entity={value}"),
    ("wandb_group", "wandb.group"): OurWords("tracking.group={value}"),
    ("wandb_mode", "wandb.mode"): OurWords("tracking.mode={value}"),
    ("wandb.tags", "wandb_tags", "tags"): OurWords("tracking.tags={value}"),
    ("resume_from_checkpoint", "ckpt_path", "resume"): OurWords("", "give danube-sweep resume DIR"),
    ("push_to_hub", "hub_model_id"): OurWords("", "give danube-sweep export RUN_DIR OUT_DIR --push OWNER/NAME"),
    ("do_train", "do_eval", "do_predict", "train", "test"): OurWords(
        "", "a run trains and validates; trainer.score_test=true scores the test part, danube-sweep predict new rows"
    ),
    # the sweep
    ("n_trials", "num_trials", "num_samples", "max_runs"): OurWords("sweep.trials={value}"),
    ("max_concurrent_trials", "n_jobs", "num_workers"): OurWords("sweep.slots={value}"),
    ("direction",): OurWords("sweep.goal={value}"),
}

FIELD_NAMES: dict[str, OurWords] = {name: ours for names, ours in _FIELDS.items() for name in names}
"""Another tool's field, whole or its last word -> our override."""

COMMAND_NAMES: dict[str, str] = {
    **dict.fromkeys(
        ("train", "fit", "finetune", "fine-tune", "run", "start", "sft"),
        "training needs none; give danube-sweep GROUP=OPTION FIELD=VALUE",
    ),
    **dict.fromkeys(
        ("eval", "evaluate", "test", "score", "validate"),
        "a run validates as it trains; trainer.score_test=true scores its test part, and new rows are for "
        "danube-sweep predict RUN_DIR INPUT -o OUTPUT; for tasks like MMLU give danube-sweep benchmark",
    ),
    **dict.fromkeys(("lm_eval", "lm-eval", "bench", "harness"), "give danube-sweep benchmark [OVERRIDES] tasks=post"),
    **dict.fromkeys(
        ("infer", "inference", "generate", "submit", "submission"), "give danube-sweep predict RUN_DIR INPUT -o OUTPUT"
    ),
    **dict.fromkeys(
        ("models", "model", "options", "list", "groups", "experiments", "datasets"),
        "danube-sweep --help lists the options of every group, models included",
    ),
    **dict.fromkeys(("tune", "search", "optimize", "hpo", "multirun"), "give danube-sweep -m FIELD=VALUE,VALUE"),
    "wandb": "give wandb agent SWEEP_ID, or danube-sweep sweep FILE without a server",
    **dict.fromkeys(("continue", "restart", "retry"), "give danube-sweep resume DIR"),
    **dict.fromkeys(("ranking", "results", "compare", "leaderboard", "best"), "give danube-sweep rank SWEEP_DIR"),
    **dict.fromkeys(("status", "monitor", "progress"), "give danube-sweep watch SWEEP_DIR"),
    **dict.fromkeys(("merge", "push", "save", "convert"), "give danube-sweep export RUN_DIR OUT_DIR"),
    **dict.fromkeys(("estimate", "memory", "vram"), "give danube-sweep plan GROUP=OPTION FIELD=VALUE"),
    **dict.fromkeys(("config", "cfg"), "give danube-sweep --cfg job --resolve GROUP=OPTION FIELD=VALUE"),
    **dict.fromkeys(("html", "plot", "page"), "give danube-sweep report SWEEP_DIR"),
}
"""The first word of another tool's command -> our command."""
