"""How many tokens go through a backbone at a time in evaluation: of the config alone, so a plan knows it too."""

from typing import Final

from danube_sweep.config.schema import Config

LEAST_TOKENS: Final = 1024
"""Of a CPU: fewer leave a CPU to Python and to dequantised weights (docs/decisions/034).

Elsewhere what a micro-batch of the longest rows has: it fits in any case.
"""


def eval_tokens(config: Config, longest: int, *, on_cpu: bool) -> int:
    """Tokens of a forward pass in evaluation, padding included, where trainer.eval_batch does not give its rows.

    At least those of a micro-batch of rows of `longest` tokens, in each of a head's passes.
    """
    least = LEAST_TOKENS // config.head.passes if on_cpu else 0
    return max(int(config.trainer.micro_batch) * longest, least)
