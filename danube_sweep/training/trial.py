"""A trial while it trains: its steps, loss, clipping, optimizer, schedule, loss scale and phase.

Its reports are in journal.py, its checkpoints in resume.py, its best step and patience in best_and_patience.py. The
forward pass and evaluation belong to the pack (pack/), the order within a step to lightning_loop.py.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import final

import torch
from torch import nn

from danube_sweep import lora
from danube_sweep.config.facts.adapters import never_decayed
from danube_sweep.config.schema import Compute, Config, Lora
from danube_sweep.config.schema.states import Verdict
from danube_sweep.data.encoded import Encoded
from danube_sweep.errors import Diverged, Interrupted
from danube_sweep.optimizer.build_optimizer import build_optimizer, to_training
from danube_sweep.optimizer.schedule import build_schedule
from danube_sweep.training import checks, resume, trained_weights
from danube_sweep.training.assemble import AssembledModel
from danube_sweep.training.best_and_patience import BestSoFar
from danube_sweep.training.drawn_rows import head_draws
from danube_sweep.training.evaluate import Evaluation
from danube_sweep.training.journal import Journal, Surroundings
from danube_sweep.training.out_of_memory import concerns_the_pack
from danube_sweep.training.ranks import Ranks
from danube_sweep.training.resume import Progressed
from danube_sweep.training.shards import Gathered, Shards
from danube_sweep.training.step_plan import Collator, MicroBatch, StepPlan

Judge = Callable[[int], Verdict]
"""Called with the number of validations so far, which are in metrics.csv. Returns the verdict on the trial."""


class Phase(Enum):
    """Where a trial of a pack stands."""

    running = "running"
    finished = "finished"
    pruned = "pruned"
    paused = "paused"
    """By its sweep, at a validation."""
    stopped = "stopped"
    """On request, or dismissed."""
    failed = "failed"


_PHASE_AFTER = {Verdict.pause: Phase.paused, Verdict.prune: Phase.pruned, Verdict.finish: Phase.finished}


@contextmanager
def sparing(trial: "ActiveTrial") -> Iterator[None]:
    """An error inside ends this trial alone. A lack of memory or of a working device is raised, as it concerns the
    pack.
    """
    try:
        yield
    except Interrupted:  # asked twice: at once
        raise
    except Exception as error:
        if concerns_the_pack(error):
            raise
        trial.phase, trial.error = Phase.failed, error


def add_up_gradients(parameters: Sequence[nn.Parameter], loss: torch.Tensor, ranks: Ranks) -> None:
    """Replaces the gradients, and the step's loss, by their sums over the ranks.

    A parameter that this rank's rows did not reach counts as zero; one that no rank's rows reached stays without.
    """
    if ranks.count == 1:
        return
    trained = [one for one in parameters if one.requires_grad]
    reached = torch.tensor([float(one.grad is not None) for one in trained], device=loss.device)
    missing = [place for place, one in enumerate(trained) if one.grad is None]
    for place in missing:
        trained[place].grad = torch.zeros_like(trained[place])
    ranks.add_up([*(one.grad for one in trained if one.grad is not None), reached, loss])
    for place in missing:
        if not float(reached[place]):
            trained[place].grad = None


@final
class ActiveTrial:
    """One trial of a pack: `start` it on its device, feed it its micro-batches, take it over its borders, read `phase`.

    It trains the adapter and the head of `model`. It shares the rest of the backbone with the pack.
    """

    def __init__(
        self,
        model: AssembledModel,
        data: dict[str, Encoded],
        plan: StepPlan,
        where: Surroundings,
        judge: Judge | None = None,
    ) -> None:
        self.config: Config = model.config
        self.model, self.data, self.plan, self.where, self._judge = model, data, plan, where, judge
        self.ranks = plan.ranks
        self.done, self.best, self.journal = Progressed(), BestSoFar(), Journal(model.config, plan, where)
        self.phase = Phase.running
        self.error: Exception | None = None
        self.dismissal: str | None = None
        """Why it was asked to leave before its end, where it was."""
        self.at_border = False
        self.companions = self.most_companions = 1
        """The trials that train in its pack, itself included: now, and at most so far."""
        self._step_loss: torch.Tensor | None = None
        self._was_validated = False

    def start(self, collated: Collator) -> None:
        """Builds optimizer, schedule and loss scale once the parameters are on their device, and resumes.

        Whether it has ended already is for the leading rank to say.
        """
        config, backbone = self.config, self.model.backbone
        head = dict(self.model.head.named_parameters())
        self.shards = Shards(self.model.parameters)
        ratio = config.lora.plus_ratio if isinstance(config.lora, Lora) else 1.0
        self.optimizer = build_optimizer(
            config.optimizer,
            self.shards.of(self.model.adapter),
            head,
            head_lr=config.head.lr,
            plus_ratio=ratio,
            never_decayed=never_decayed(config.lora),
        )
        self.schedule = build_schedule(config.schedule, self.optimizer, total_steps=self.plan.scheduled_steps)
        self.allocation = lora.rank_allocation(backbone, config.lora, total_steps=self.plan.scheduled_steps)
        scaled = config.precision.compute is Compute.fp16
        self.scaler = torch.amp.GradScaler(backbone.device.type, enabled=scaled)
        validated = self._go_on()
        to_training(self.optimizer)
        self._stream = self.plan.micro_batches(self.done.step, collated)
        if not self.ranks.leads:
            return
        if self._is_over():
            self.phase = Phase.finished
        elif validated:  # it may have been about to leave when its process was killed
            self._obey()
        self.journal.begin(self.done.step, tokens=self.done.tokens, seconds=self.done.train_seconds)

    def _go_on(self) -> bool:
        # The leading rank chooses the checkpoint, and the others read the same one.
        if not self.ranks.leads:
            resume.restore(self, self.ranks.said(0))
            return False
        try:
            return resume.go_on(self)
        finally:
            self.ranks.said(self.done.step)

    # --------------------------------------------------------------------------------------------------- in a step

    def draw(self) -> MicroBatch:
        """The trial's next micro-batch, from where it stands to its end."""
        return next(self._stream)

    def loss(self, hidden_BTH: torch.Tensor, micro: MicroBatch) -> torch.Tensor:
        """The micro-batch's part of its step's loss, scaled for fp16; its sum over a pack is differentiated."""
        mean, loss = self._losses(hidden_BTH, micro)
        own = mean.detach() * micro.of_step
        self._step_loss = own if self._step_loss is None else self._step_loss + own
        scaled: torch.Tensor = self.scaler.scale(loss)
        return scaled

    def tried_loss(self, hidden_BTH: torch.Tensor, micro: MicroBatch) -> torch.Tensor:
        """The same of a micro-batch that is only tried: nothing is counted, logged or scaled."""
        return self._losses(hidden_BTH, micro)[1]

    def _losses(self, hidden_BTH: torch.Tensor, micro: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        # The micro-batch's mean, and its part of the gradient.
        head = self.model.head
        with head_draws(micro):
            mean = head.loss(head(hidden_BTH, micro.batch), micro.batch)
        loss = mean * micro.share
        if (
            self.allocation is not None and micro.last and self.ranks.leads
        ):  # once a step, and no part of the loss that is logged
            loss = loss + self.allocation.penalty()
        return mean, loss

    def after_backward(self, micro: MicroBatch) -> None:
        """Counts the micro-batch. At a step's border `update` comes next."""
        self.done.tokens += micro.tokens
        self.where.terminal.alive()
        self.at_border = micro.last
        if micro.last and self.done.step == 0:
            checks.check_gradients(self.model.parameters)

    def update(self) -> None:
        """At a step's border: sums the gradients of the ranks, and updates the weights."""
        assert self._step_loss is not None
        self.shards.take_gradients()
        add_up_gradients(self.shards.whole, self._step_loss, self.ranks)
        self.scaler.unscale_(self.optimizer)
        limit = self.config.trainer.clip_norm
        norm = self.shards.clip(math.inf if limit is None else limit, self.ranks)
        lr = self.optimizer.param_groups[0]["lr"]
        self.scaler.step(self.optimizer)
        self._count_overflow()
        if self.allocation is not None and self.done.overflows == 0:
            self.allocation.after_step(self.done.step + 1)
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=self.model.packed is None)  # a packed adapter's gradients are views
        self.done.step += 1
        if self.ranks.leads:
            self.journal.add(self.done.step, loss=self._step_loss, lr=lr, grad_norm=norm, tokens=self.done.tokens)
        self._step_loss = None

    def _count_overflow(self) -> None:
        # fp16: a step whose gradients overflowed is skipped and the scale halved; a few at the start are normal.
        before = self.scaler.get_scale()
        self.scaler.update()
        self.done.overflows = self.done.overflows + 1 if self.scaler.get_scale() < before else 0

    def charge(self, seconds: float, *, validating: bool) -> None:
        """Takes its part of the pack's time."""
        if validating:
            self.done.validation_seconds += seconds
        else:
            self.done.train_seconds += seconds

    # -------------------------------------------------------------------------------------------- at a step's border

    @property
    def parts_read(self) -> list[str]:
        """The parts of its data that it reads from here to its end."""
        wanted = {"train": True, "validation": self.config.data.validates, "test": self.config.trainer.score_test}
        return [part for part in self.data if wanted[part]]

    @property
    def validates(self) -> bool:
        """Whether it is validated at the border that it has reached."""
        return self.plan.validates_after(self.done.step)

    def write(self, leaving: bool) -> None:
        """At a border: writes the steps that are due. Raises Diverged if one was not finite."""
        if self.plan.is_kept_after(self.done.step) or leaving or self.journal.is_full:
            done = self.done
            done.last_loss = self.journal.write(
                done.train_seconds, companions=self.companions, overflows=done.overflows
            )

    def keep(self, evaluation: Evaluation | None, leaving: bool, gathered: Gathered | None = None) -> None:
        """At a border: takes the evaluation where one was due, and writes a checkpoint then, or if it is to leave.

        Where no rows validate, the checkpoints come at the same steps. `gathered` is what the ranks divide.
        """
        self.at_border, self._was_validated = False, evaluation is not None
        if evaluation is not None:
            self._take(evaluation, gathered)
        elif leaving or self.plan.is_kept_after(self.done.step):
            resume.save(self, None, gathered)

    def gather(self) -> Gathered:
        """The weights and states that the ranks divide, for the first rank's `keep`. All ranks must call it."""
        return Gathered(trained_weights.gather(self.model), self.shards.gathered(self.optimizer))

    def cross(self, leaving: bool) -> None:
        """Takes the trial over the border that it was kept at; out of the pack if it has ended or is to leave."""
        if self._is_over():
            self.phase = Phase.finished
            return
        if self._was_validated:
            self._obey()
        if leaving and self.phase is Phase.running:
            self.phase = Phase.stopped

    def _obey(self) -> None:
        if self._judge is None:
            return
        verdict = self._judge(self.best.validations)
        self.phase = _PHASE_AFTER.get(verdict, Phase.running)
        if verdict is Verdict.finish and self.done.step < self.plan.total_steps:
            self.where.terminal.note("no validation was better for a while: pruner=patient ends the trial here")

    def _take(self, evaluation: Evaluation, gathered: Gathered | None) -> None:
        step, metrics = self.done.step, evaluation.metrics
        if not math.isfinite(metrics[self.config.head.metrics[0]]):
            raise Diverged(f"the validation loss is not finite after step {step}; lower optimizer.lr")
        is_best = self.best.take(step, metrics, self.config.objective)
        self.journal.add_validation(step, self.done.train_seconds, metrics, best=is_best)
        resume.save(self, evaluation, gathered)

    def _is_over(self) -> bool:
        return self.done.step >= self.plan.total_steps or self.best.is_out_of_patience(self.config.trainer.patience)
