"""The kind of answer that several models give together."""

from collections.abc import Sequence

from danube_sweep.config.schema import Config, Target
from danube_sweep.config.stored import option_name
from danube_sweep.errors import ConfigError


def blended_target(configs: Sequence[Config], where: str) -> Target:
    """The target of the mean of the models' answers, which is that of their heads.

    Probabilities of classes have a mean whether or not a head knows the order of the classes. The mean of both kinds is
    `ordered`. Raises ConfigError, which starts with `where`, for heads whose answers have no mean.
    """
    targets = {config.head.target for config in configs}
    if targets == {Target.one, Target.ordered}:
        return Target.ordered
    if len(targets) > 1:
        heads = [f"head={name}" for name in dict.fromkeys(option_name(config, "head") for config in configs)]
        raise ConfigError(
            f"{where}: answers of {', '.join(heads[:-1])} and {heads[-1]} have no mean; take models with one kind of "
            "head"
        )
    return targets.pop()
