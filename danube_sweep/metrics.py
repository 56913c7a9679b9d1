"""What a trial's predictions are worth, by torchmetrics."""

import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)


def classification_metrics(probabilities_NC: torch.Tensor, labels_NC: torch.Tensor) -> dict[str, float]:
    """Log loss (nats, against soft labels too), accuracy, macro F1 and ECE (15 bins, L1; arXiv:1706.04599)."""
    classes = probabilities_NC.shape[1]
    target_N = labels_NC.argmax(dim=1)
    log_NC = probabilities_NC.double().clamp(min=1e-15).log()
    return {
        "log_loss": float(-(labels_NC * log_NC).sum(dim=1).mean()),
        "accuracy": float(multiclass_accuracy(probabilities_NC, target_N, num_classes=classes, average="micro")),
        "macro_f1": float(multiclass_f1_score(probabilities_NC, target_N, num_classes=classes, average="macro")),
        "ece": float(multiclass_calibration_error(probabilities_NC, target_N, num_classes=classes, n_bins=15)),
    }


def prior_log_loss(train_NC: torch.Tensor, labels_NC: torch.Tensor) -> float:
    """The log loss of always answering with the training part's class shares."""
    prior_C = train_NC.double().mean(dim=0).clamp(min=1e-15)
    return float(-(labels_NC * prior_C.log()).sum(dim=1).mean())
