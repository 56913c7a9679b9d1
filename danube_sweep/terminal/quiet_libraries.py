"""Turns off messages of libraries that are of no use to our users, where a command starts."""

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Keeps warnings and errors of the libraries, drops their banners and known false alarms."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # bitsandbytes looks for an optional CPU kernel when it is imported and logs an error if there is none.
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each of its retries; we report the outcome
    for message in (
        ".*does not have many workers.*",  # rows are tokenised beforehand; a worker would only copy them
        ".*GPU available but not used.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",  # lightning 2.6 on a newer torch
        ".*Detected call of `lr_scheduler.step\\(\\)` before.*",  # fp16 skips the step whose gradients overflowed
        ".*`training_step` returned `None`.*",
        ".*gradient_checkpointing.* is deprecated.*",  # its successor is newer than the oldest transformers we take
    ):
        warnings.filterwarnings("ignore", message)
    import lightning.pytorch  # noqa: F401  (it sets its own log level when it is imported)

    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
