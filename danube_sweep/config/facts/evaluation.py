"""How many tokens go through a backbone at a time in evaluation: of the config alone, so a plan knows it too."""

from typing import Final

from danube_sweep.config.schema import Config

LEAST_TOKENS: Final = {"cpu": 1024}
"""By the kind of device: fewer leave a CPU to Python and to dequantised weights (docs/decisions/034).

Elsewhere what a micro-batch of the longest rows has: it fits in any case.
"""


def eval_tokens(config: Config, longest: int, *, on_cpu: bool) -> int | None:
    """Tokens of a forward pass in evaluation, padding included; None where trainer.eval_batch gives its rows.

    At least those of a micro-batch of rows of `longest` tokens, in each of a head's passes.
    """
    if config.trainer.eval_batch is not None:
        return None
    least = LEAST_TOKENS.get("cpu" if on_cpu else "", 0) // config.head.passes
    return max(int(config.trainer.micro_batch) * longest, least)
