"""The interface of a head: hidden states in, loss and answers out.

Axes: B rows, T tokens, H hidden width, C classes, N examples (rows or words), A numbers of an answer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from danube_sweep.config.schema import ClassifierHead, Target
from danube_sweep.data.batches import Batch
from danube_sweep.data.encoded import Encoded


class Head(nn.Module, ABC):
    """`forward` gives the output that the other methods read. `metrics.measure` scores its answers."""

    target: Target
    classes: list[str]
    """The kind of answer and the classes, set by `build_head`."""

    reads_every_word: ClassVar[bool] = False
    """Whether it reads the states of tokens, without a pooling."""

    def last_layers(self) -> list[dict[str, Any]]:
        """The layers of head.json after the last layer's output, for exports; by default none."""
        return []

    def start(self, train: Encoded) -> None:
        """Reads statistics of the training rows before training: the range of numbers, the frequency of classes."""

    @abstractmethod
    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor: ...

    @abstractmethod
    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean loss of the batch, each row counted by its weight."""

    @abstractmethod
    def example_losses(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The losses of an evaluation, one per example and without label smoothing: losses_N."""

    @abstractmethod
    def answers(self, output: torch.Tensor) -> torch.Tensor | None:
        """The predictions: answers_NA, probabilities or a number; None for a head without predictions."""


class Classifies(Head):
    """A head whose output is logits_BC, or log probabilities."""

    def __init__(self, config: ClassifierHead) -> None:
        super().__init__()
        self.label_smoothing = config.label_smoothing

    def wanted(self, batch: Batch) -> torch.Tensor:
        """The target of the output: a share of each class, or the number of one, for each row of the output."""
        return labels_of(batch) if batch.words_P3 is None else batch.words_P3[:, 2]

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        def loss(reduction: str) -> torch.Tensor:
            wanted = self.wanted(batch)
            return F.cross_entropy(output, wanted, label_smoothing=self.label_smoothing, reduction=reduction)

        return weighted_mean(loss, batch)

    def example_losses(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(output, self.wanted(batch), reduction="none")

    def answers(self, output: torch.Tensor) -> torch.Tensor | None:
        return output.softmax(dim=-1)


def weighted_mean(loss: Callable[[str], torch.Tensor], batch: Batch) -> torch.Tensor:
    """The mean of a loss over the rows of a batch, each counted by its weight.

    `loss`: takes torch's `reduction`. A loss of several numbers a row counts by their mean.
    """
    if batch.even:
        return loss("mean")
    losses_B = loss("none").reshape(len(batch.weights_B), -1).mean(dim=1)
    return (losses_B * batch.weights_B).sum() / batch.weights_B.sum()


def labels_of(batch: Batch) -> torch.Tensor:
    """The labels of a batch whose rows are labelled."""
    assert batch.labels_BC is not None
    return batch.labels_BC


def labels_in(part: Encoded) -> torch.Tensor:
    """The labels of a part whose rows are labelled."""
    assert part.labels is not None
    return torch.from_numpy(part.labels)
