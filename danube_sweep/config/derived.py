"""Values that follow from others: written out in a composed config, and left out of a trial's hash again."""

from dataclasses import replace

from danube_sweep.config.require import require
from danube_sweep.config.schema import Adalora, Batching, Config, Lora, RowLayout


def use_present_names(config: Config) -> None:
    """Says version 0.1's `data.batching=packed` in today's words, in place. Raises ConfigError for another layout."""
    data = config.data
    if data.batching is Batching.packed:
        require(
            data.layout is not RowLayout.padded,
            "data.batching=packed is an older name for data.batching=shuffled data.layout=flat, got "
            "data.layout=padded; give data.batching=shuffled",
        )
        data.batching, data.layout = Batching.shuffled, RowLayout.flat


def write_out(config: Config) -> None:
    """Gives `lora.alpha` its number, in place; to be called on checked values."""
    match config.lora:
        case Lora() | Adalora() as adapter:
            adapter.alpha = adapter.used_alpha


def plainest(config: Config) -> Config:
    """The same trial with every value that follows from others left to do so: equal trials are then equal configs."""
    adapter = config.lora
    match adapter:
        case Lora() | Adalora() if adapter.alpha == adapter.default_alpha:
            adapter = replace(adapter, alpha=None)
    order = None if config.data.order_seed == config.seed else config.data.order_seed
    return replace(config, lora=adapter, data=replace(config.data, order_seed=order))
