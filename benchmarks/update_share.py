"""What the updates of a pack cost: clipping, AdamW and zeroing, as a share of a step, and as one pass over all trials.

    python benchmarks/update_share.py [--model FOLDER] [--trials 8] [--tokens 32] [--steps 4] [--rounds 5]

A pack trains some steps on a CPU, LoRA on all linears, one row a trial and step. A trial's update is timed inside them.
Then the same gradients are applied to the same weights in other ways, which take turns:

- today: for each trial `clip_grad_norm_` (a foreach pass over the trial's gradients), torch's fused AdamW, `zero_grad`
- one pass: each of these once over the gradients of all trials. It needs trials with one rate and one weight decay
- one pass, own rates: AdamW by `torch._foreach_*`, which takes a list of rates
- over the stacks: each of these once over the stacks of a linear, so over fewer tensors. One rate, as above

The table has milliseconds of one thread, what would be saved of a step, and whether weights and states are equal bit by
bit to today's.
"""

import argparse
import logging
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Config
from danube_sweep.terminal.quiet_libraries import quiet_libraries
from danube_sweep.training.lightning_loop import PackModule
from danube_sweep.training.trial import ActiveTrial

SHAPE = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "head_dim": 64, "vocab_size": 4000}
LR, DECAY, LIMIT, BETAS, EPS = 1e-3, 0.01, 1.0, (0.9, 0.999), 1e-8
Tensors = list[torch.Tensor]
Update = Callable[[], None]


class Measured(BaseException):
    """Ends the pack once there is nothing left to measure."""


def configured(options: argparse.Namespace, folder: Path) -> list[Config]:
    """The trials: rows of exactly so many tokens, and no validation before the end."""
    random, file = Random(0), folder / "rows.csv"
    words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(500)]
    lines = [f"{' '.join(random.choices(words, k=options.tokens))},{'xyz'[number % 3]}\n" for number in range(64)]
    file.write_text("text,label\n" + "".join(lines))
    model = [f"model.shape.{name}={value}" for name, value in SHAPE.items()]
    if options.model is not None:
        model = ["model=auto", f"model.path={options.model.absolute()}"]
    fixed = [*model, "head=sequence", "data=table", f"data.path={file}", f"data.max_length={options.tokens}"]
    fixed += ["lora.rank=16", "lora.targets=all_linear", f"precision={options.precision}", "precision.compute=fp32"]
    fixed += ["trainer.micro_batch=1", "trainer.effective_batch=1", f"trainer.max_steps={options.steps + 2}"]
    fixed += ["device=cpu", "device.threads=1", "tracking=none", f"trainer.clip_norm={LIMIT}"]
    return [Composer().trial([*fixed, f"seed={seed}"]) for seed in range(options.trials)]


def watched(configs: Sequence[Config], folder: Path, options: argparse.Namespace) -> tuple[float, float, list[Any]]:
    """Trains the pack; returns seconds of a step, seconds of its updates, and the rows of the table."""
    from rich.console import Console

    from danube_sweep.terminal.screen import Terminal
    from danube_sweep.training.run import run_pack
    from danube_sweep.training.setup import Entrant

    steps, updates, found = list[float](), list[float](), list[Any]()
    step, update = PackModule.training_step, ActiveTrial.update

    def timed_update(trial: ActiveTrial) -> None:
        began = time.process_time()
        update(trial)
        updates[-1] += time.process_time() - began

    def timed_step(module: PackModule, batch: int, batch_idx: int) -> None:
        updates.append(0.0)
        began = time.process_time()
        step(module, batch, batch_idx)
        steps.append(time.process_time() - began)
        if len(steps) > options.steps:
            found.extend(compared(module, options.rounds))
            raise Measured

    PackModule.training_step, ActiveTrial.update = timed_step, timed_update  # type: ignore[method-assign]
    try:
        terminal = Terminal(Console(quiet=True))
        entrants = [Entrant(config, folder / str(number), terminal) for number, config in enumerate(configs)]
        run_pack(entrants, Door(), stop=lambda: False)  # type: ignore[arg-type]
    except Measured:
        pass
    finally:
        PackModule.training_step, ActiveTrial.update = step, update  # type: ignore[method-assign]
    return statistics.median(steps[1:]), statistics.median(updates[1:]), found  # the first step warms up


class Door:
    """A pack's door that nobody enters or leaves by."""

    def next(self) -> None:
        return None

    def dismisses(self, entrant: Any) -> None:
        return None

    def left(self, entrant: Any, error: BaseException | None) -> None:
        raise RuntimeError(f"{entrant.path} has left the pack") from error


# ------------------------------------------------------------------------------------------------ the ways to update


def flat(groups: list[Tensors]) -> Tensors:
    """The tensors of all groups, in their order."""
    return [one for group in groups for one in group]


class Adam:
    """AdamW's states of some tensors."""

    def __init__(self, weights: Tensors) -> None:
        self.weights = weights
        self.means, self.squares = ([torch.zeros_like(one) for one in weights] for _ in range(2))
        self.steps = [torch.zeros(()) for _ in weights]

    def fused(self, gradients: Tensors) -> None:
        torch._foreach_add_(self.steps, 1)
        torch._fused_adamw_(
            self.weights, gradients, self.means, self.squares, [], self.steps,
            lr=LR, beta1=BETAS[0], beta2=BETAS[1], weight_decay=DECAY, eps=EPS, amsgrad=False, maximize=False,
        )  # fmt: skip

    def foreach(self, gradients: Tensors) -> None:
        torch._foreach_add_(self.steps, 1)
        rates, steps = [LR] * len(gradients), [float(one) for one in self.steps]
        torch._foreach_mul_(self.weights, [1 - rate * DECAY for rate in rates])
        torch._foreach_lerp_(self.means, gradients, 1 - BETAS[0])
        torch._foreach_mul_(self.squares, BETAS[1])
        torch._foreach_addcmul_(self.squares, gradients, gradients, 1 - BETAS[1])
        roots = torch._foreach_sqrt(self.squares)
        torch._foreach_div_(roots, [(1 - BETAS[1] ** step) ** 0.5 for step in steps])
        torch._foreach_add_(roots, EPS)
        sizes = [-rate / (1 - BETAS[0] ** step) for rate, step in zip(rates, steps, strict=True)]
        torch._foreach_addcdiv_(self.weights, self.means, roots, sizes)


class Way:
    """The trials' weights and gradients in memory of their own, and a way to update them."""

    def __init__(self, stacks: Tensors, heads: list[Tensors]) -> None:
        trials = len(heads)
        self.stacks, self.heads = [one.clone() for one in stacks], [[one.clone() for one in head] for head in heads]
        self.grads = [torch.empty_like(one) for one in self.stacks]
        self.head_grads = [[torch.empty_like(one) for one in head] for head in self.heads]
        self.own = [[one[n] for one in self.stacks] + self.heads[n] for n in range(trials)]
        self.own_grads = [[one[n] for one in self.grads] + self.head_grads[n] for n in range(trials)]
        self.all, self.all_grads = flat(self.own), flat(self.own_grads)

    def refill(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for one in [*self.grads, *flat(self.head_grads)]:
            one.normal_(generator=draw)

    def today(self) -> Update:
        parameters = [[torch.nn.Parameter(one) for one in own] for own in self.own]
        for own, gradients in zip(parameters, self.own_grads, strict=True):
            for one, gradient in zip(own, gradients, strict=True):
                one.grad = gradient
        self.optimizers = [
            torch.optim.AdamW(own, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True) for own in parameters
        ]

        def update() -> None:
            for own, optimizer in zip(parameters, self.optimizers, strict=True):
                torch.nn.utils.clip_grad_norm_(own, LIMIT)
                optimizer.step()
                optimizer.zero_grad(set_to_none=False)

        return update

    def _clip(self) -> None:
        norms, each = torch._foreach_norm(self.all_grads), len(self.own_grads[0])
        factors = []
        for place in range(0, len(norms), each):
            norm = torch.linalg.vector_norm(torch.stack(norms[place : place + each]))
            factors += [torch.clamp(LIMIT / (norm + 1e-6), max=1.0)] * each
        torch._foreach_mul_(self.all_grads, factors)

    def one_pass(self, kind: str) -> Update:
        adam = Adam(self.all)

        def update() -> None:
            self._clip()
            getattr(adam, kind)(self.all_grads)
            torch._foreach_zero_(self.all_grads)

        return update

    def over_stacks(self) -> Update:
        adam, others = Adam([*self.stacks, *flat(self.heads)]), flat(self.head_grads)

        def update() -> None:
            squares_n = sum(torch.linalg.vector_norm(one, dim=(1, 2)).square() for one in self.grads)
            squares_n = squares_n + torch.stack([sum(one.square().sum() for one in head) for head in self.head_grads])
            factors_n = torch.clamp(LIMIT / (squares_n.sqrt() + 1e-6), max=1.0)
            torch._foreach_mul_(self.grads, [factors_n[:, None, None]] * len(self.grads))
            for factor, head in zip(factors_n, self.head_grads, strict=True):
                torch._foreach_mul_(head, factor)
            adam.fused([*self.grads, *others])
            torch._foreach_zero_([*self.grads, *others])

        return update


def compared(module: PackModule, rounds: int) -> list[tuple[str, float, bool, float]]:
    """Of each way its median seconds, whether its weights are today's bit by bit, and the largest difference."""
    stacks = [one.detach() for one in module.pack.adapters.leaves()]
    heads = [[one.detach() for one in trial.model.head.parameters()] for trial in module.pack.trials]
    ways = {name: Way(stacks, heads) for name in ("today", "one pass", "one pass, own rates", "over the stacks")}
    updates = {
        "today": ways["today"].today(),
        "one pass": ways["one pass"].one_pass("fused"),
        "one pass, own rates": ways["one pass, own rates"].one_pass("foreach"),
        "over the stacks": ways["over the stacks"].over_stacks(),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with torch.no_grad():
        for number in range(rounds + 1):
            for name, update in updates.items():
                ways[name].refill(number)
                began = time.process_time()
                update()
                taken[name].append(time.process_time() - began)
    found = []
    for name, way in ways.items():
        pairs = list(zip(way.all, ways["today"].all, strict=True))
        same = all(torch.equal(one, other) for one, other in pairs)
        apart = max(float((one - other).abs().max()) for one, other in pairs)
        found.append((name, statistics.median(taken[name][1:]), same, apart))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, help="a pretrained folder instead of a random model 256 wide, of 4 blocks"
    )
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32, help="of a trial and step")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="nf4")
    options = parser.parse_args(arguments)
    quiet_libraries()
    logging.disable(logging.WARNING)
    with TemporaryDirectory() as temporary:
        configs = configured(options, Path(temporary))
        step_s, updates_s, rows = watched(configs, Path(temporary), options)
    print(f"{options.trials} trials, {options.tokens} tokens each, {options.precision}: {1000 * step_s:.1f} ms a step")
    print(f"updates inside the steps: {1000 * updates_s:.1f} ms, {updates_s / step_s:.1%} of a step\n")
    print("| way | ms | of a step | saved, of a step | weights against today's |")
    print("| --- | --- | --- | --- | --- |")
    today = rows[0][1]
    for name, seconds, same, apart in rows:
        said = "bit-equal" if same else f"{apart:.1e} apart"
        share, saved = seconds / step_s, (today - seconds) / step_s
        print(f"| {name} | {1000 * seconds:.2f} | {share:.1%} | {saved:.1%} | {said} |", flush=True)


if __name__ == "__main__":
    main()
