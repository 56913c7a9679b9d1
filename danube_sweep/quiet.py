"""Library chatter that says nothing to a user of this package, turned off where a command starts."""

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Keeps warnings and errors of the libraries, drops their banners and known false alarms.

    Call it after importing them: lightning sets its own log level on import.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "torch.utils.flop_counter"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # bitsandbytes looks for an optional CPU kernel and logs an error when it finds none.
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    for message in (
        ".*does not have many workers.*",  # rows are tokenised beforehand; a worker would only copy them
        ".*GPU available but not used.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",  # lightning 2.6 on a newer torch
        ".*Detected call of `lr_scheduler.step\\(\\)` before.*",  # fp16 skips the step whose gradients overflowed
        ".*`training_step` returned `None`.*",
    ):
        warnings.filterwarnings("ignore", message)
