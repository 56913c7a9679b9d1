"""`danube-sweep agent`: several W&B agents on one machine, whose trials train together."""

from pathlib import Path

from danube_sweep.cli.parser import Parser
from danube_sweep.errors import ConfigError


def agent(arguments: list[str]) -> int:
    """`danube-sweep agent`: keeps N stock agents of a W&B sweep, and packs their trials."""
    parser = Parser(
        "danube-sweep agent",
        description="Keeps several W&B agents of one sweep on this machine. Their trials are handed to one executor, "
        "which loads the model once and trains them in packs. Each trial has its own W&B run. docs/wandb.md has the "
        "details.",
        epilog="example: danube-sweep agent me/my-project/ab12cd34 --trials 8 sweep.pack=8",
    )
    parser.add_argument(
        "words", nargs="*", metavar="SWEEP | sweep.FIELD=VALUE", help="ENTITY/PROJECT/ID; settings of the executor"
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", help="how many trials train at a time (default 1; of --serve, all that come)"
    )
    parser.add_argument("--serve", type=Path, metavar="SWEEP_DIR", help="only the executor of this sweep folder")
    options = parser.parse_intermixed_args(arguments)
    if options.trials is not None and options.trials < 1:
        parser.error(f"--trials must be at least 1, got {options.trials}")
    settings = [word for word in options.words if "=" in word]
    sweeps = [word for word in options.words if word not in settings]
    if options.serve is not None and sweeps:
        parser.error(
            f"--serve {options.serve} runs the executor of that folder alone, and {sweeps[0]} names a W&B sweep"
        )
    if options.serve is not None:
        from danube_sweep.sweeping.share.serve import serve
        from danube_sweep.terminal.screen import Terminal

        with Terminal() as terminal:
            serve(options.serve, options.trials, settings, terminal)
        return 0
    if len(sweeps) != 1:
        raise ConfigError("give one sweep as ENTITY/PROJECT/ID, as `wandb sweep` prints it")

    from danube_sweep.sweeping.share.agents import run_agents

    run_agents(sweeps[0], options.trials or 1, settings)
    return 0
