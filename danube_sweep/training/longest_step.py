"""The longest step, tried once before training, so that a lack of memory shows in the first seconds."""

from contextlib import ExitStack

import torch

from danube_sweep.model.sharded import own_part
from danube_sweep.planner.parameter_bytes import Tensors, state_bytes
from danube_sweep.training.pack import TrainingPack
from danube_sweep.training.step_plan import Collator, MicroBatch, random_state
from danube_sweep.training.trial import ActiveTrial, Phase, sparing


def try_longest_step(pack: TrainingPack, collated: Collator) -> None:
    """Runs forward and backward passes over the largest micro-batch ahead of every running trial, all together.

    The gradients are thrown away and nothing else changes, so training continues bit for bit as it would without. On a
    GPU, memory for optimizer states and gradients that do not exist yet is held meanwhile. If memory does not suffice,
    the error of the passes is raised. An error in a trial's own loss ends that trial.
    """
    trials = [trial for trial in pack.trials if trial.phase is Phase.running]
    if not trials:
        return
    flat, device = pack.backbone.flat, pack.backbone.device
    micros = [(trial, trial.plan.largest(trial.done.step, collated, flat=flat)) for trial in trials]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), ExitStack() as stack:
        stack.callback(_held(trials, device).clear)
        losses = _losses(pack, micros)
        if pack.backbone.sharded and trials[0].ranks.either([len(losses) < len(trials)])[0]:
            return  # the loss of a trial has failed on a rank, and the ranks are about to agree on that
        if trials[0].shards:  # no leaves of the passes, and alone in its pack
            torch.autograd.backward(torch.stack(losses).sum())
            for one in trials[0].model.parameters.values():
                one.grad = None
            return
        leaves = _leaves(pack, trials)
        if losses and leaves:
            torch.autograd.grad(torch.stack(losses).sum(), leaves, allow_unused=True)


def _losses(pack: TrainingPack, micros: list[tuple[ActiveTrial, MicroBatch]]) -> list[torch.Tensor]:
    first_trial, first = micros[0]
    torch.manual_seed(random_state(first_trial.config.seed, first.step, first.index))
    losses = []
    for (trial, micro), own_BTH in zip(micros, pack.hidden(micros), strict=True):
        with sparing(trial):
            losses.append(trial.tried_loss(own_BTH, micro))
    return losses


def _leaves(pack: TrainingPack, trials: list[ActiveTrial]) -> list[torch.Tensor]:
    own = [one for trial in trials for one in trial.model.parameters.values()]
    packed = {id(one) for trial in trials if trial.model.packed for one in trial.model.packed.parameters.values()}
    return [*pack.adapters.leaves(), *(one for one in own if one.requires_grad and id(one) not in packed)]


def _held(trials: list[ActiveTrial], device: torch.device) -> list[torch.Tensor]:
    # A CPU's memory counts only once it is written to.
    if device.type == "cpu":
        return []
    missing = 0.0
    for trial in trials:
        for one in map(own_part, trial.shards.of(trial.model.parameters).values()):
            size = one.numel() * one.element_size()
            missing += size if one.grad is None else 0
            if not trial.optimizer.state and not trial.config.optimizer.paged:
                missing += state_bytes(trial.config.optimizer, Tensors({tuple(one.shape): 1}), one.element_size())
    return [torch.empty(int(missing), dtype=torch.uint8, device=device)]
