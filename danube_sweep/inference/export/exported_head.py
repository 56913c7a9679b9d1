"""The head of an exported run: from the backbone's last hidden states to logits, in plain torch.

Needs torch and safetensors, and beside this file head.json (the pooling, the layers, the classes) and
head.safetensors (the weights). Axes: B rows, T tokens, H hidden width, C classes, K texts of a row.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional as F


class Head:
    """The logits are the pooled hidden states through the layers, in fp32."""

    def __init__(self, folder: str | Path) -> None:
        described: dict[str, Any] = json.loads((Path(folder) / "head.json").read_text(encoding="utf-8"))
        self.pooling: str = described["pooling"]
        self.layers: list[dict[str, Any]] = described["layers"]
        self.classes: list[str] = described["classes"]
        self.weights = load_file(Path(folder) / "head.safetensors")

    def __call__(
        self,
        hidden: torch.Tensor,
        attention_mask: torch.Tensor,
        spans: torch.Tensor | None = None,
        sizes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """logits_BC of hidden_BTH and mask_BT (1 where there is a token, padding on either side).

        Poolings `pair` and `answer` also need spans_BK2, the tokens [start, end) of each text in its row, and sizes_BK,
        the number of tokens each text had before any was cut off. `tokens` gives logits_BTC. Of two answers that are
        read in two passes, B is all first answers' rows and then all second ones'.
        """
        hidden_BTH, mask_BT = hidden.float(), attention_mask.bool()
        pooled = [self._pooled(name, hidden_BTH, mask_BT, spans, sizes) for name in self.pooling.split("_")]
        x = torch.cat(pooled, dim=-1)
        for layer in self.layers:
            x = self._through(layer, x)
        return x

    def _through(self, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        match layer["kind"]:
            case "linear":
                return F.linear(x, self._weight(f"{layer['name']}.weight", x), self._bias(layer["name"], x))
            case "layer_norm":
                weight = self._weight(f"{layer['name']}.weight", x)
                return F.layer_norm(x, x.shape[-1:], weight, self._bias(layer["name"], x), layer["eps"])
            case "gelu":
                return F.gelu(x, approximate=layer["approximate"])
            case "relu":
                return F.relu(x)
            case "silu":
                return F.silu(x)
            case "tanh":
                return x.tanh()
            case "number":
                return x * self._weight("deviation", x) + self._weight("mean", x)
            case "ordinal":
                steps_K = torch.cat([self._weight("lowest", x), F.softplus(self._weight("steps_K", x))])
                return between(steps_K.cumsum(dim=0) - x)
            case "bradley_terry":
                first_B, second_B = x.view(2, -1)
                tie = self._weight("tie", x) if layer["weights"] else None
                return who_wins(first_B - second_B, tie, layer["ties"])
        raise ValueError(f"head.json: unknown layer {layer}")

    def _weight(self, name: str, like: torch.Tensor) -> torch.Tensor:
        return self.weights[name].to(like.device)

    def _bias(self, name: str, like: torch.Tensor) -> torch.Tensor | None:
        return self._weight(f"{name}.bias", like) if f"{name}.bias" in self.weights else None

    def _pooled(
        self,
        name: str,
        hidden_BTH: torch.Tensor,
        mask_BT: torch.Tensor,
        spans_BK2: torch.Tensor | None,
        sizes_BK: torch.Tensor | None,
    ) -> torch.Tensor:
        match name:
            case "last":
                return hidden_BTH[torch.arange(len(mask_BT)), last_token(mask_BT)]
            case "mean":
                return masked_mean(hidden_BTH, mask_BT)
            case "attention":
                scores_BT = hidden_BTH @ self._weight("pooler.query_H", hidden_BTH)
                weights_BT = scores_BT.masked_fill(~mask_BT, float("-inf")).softmax(dim=1)
                return torch.einsum("bt,bth->bh", weights_BT, hidden_BTH)
            case "tokens":
                return hidden_BTH
            case "pair" | "answer":
                if spans_BK2 is None or sizes_BK is None:
                    raise ValueError(f"{name} pooling needs spans and sizes")
                return (pair if name == "pair" else answer)(hidden_BTH, spans_BK2, sizes_BK)
        raise ValueError(f"head.json: unknown pooling {name}")


def last_token(mask_BT: torch.Tensor) -> torch.Tensor:
    """Where each row's last token stands: places_B."""
    return (torch.arange(mask_BT.shape[1], device=mask_BT.device) * mask_BT).argmax(dim=1)


def masked_mean(hidden_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """The mean over the tokens under the mask; zero where there is none."""
    weights_BT = mask_BT.to(hidden_BTH.dtype)
    return torch.einsum("bt,bth->bh", weights_BT, hidden_BTH) / weights_BT.sum(dim=1, keepdim=True).clamp(min=1)


def answer(hidden_BTH: torch.Tensor, spans_BK2: torch.Tensor, sizes_BK: torch.Tensor, text: int = -1) -> torch.Tensor:
    """[mean, l] of one of a row's texts: l is log(1 + size) times sqrt(H)."""
    positions_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
    mask_BT = (positions_T >= spans_BK2[:, text, :1]) & (positions_T < spans_BK2[:, text, 1:])
    lengths_B = sizes_BK[:, text].to(hidden_BTH.dtype).log1p() * hidden_BTH.shape[2] ** 0.5
    return torch.cat([masked_mean(hidden_BTH, mask_BT), lengths_B.unsqueeze(1)], dim=1)


def pair(hidden_BTH: torch.Tensor, spans_BK2: torch.Tensor, sizes_BK: torch.Tensor) -> torch.Tensor:
    """[A - B, |A - B|, l, |l|] of the last two texts A and B: their means, and l, how much longer A is."""
    both = [answer(hidden_BTH, spans_BK2, sizes_BK, text) for text in (-2, -1)]
    means_BH, longer_B1 = (both[0] - both[1]).tensor_split([hidden_BTH.shape[2]], dim=1)
    return torch.cat([means_BH, means_BH.abs(), longer_B1, longer_B1.abs()], dim=1)


def between(logits_BK: torch.Tensor) -> torch.Tensor:
    """Log probabilities_BC of ordered classes, P(class <= k) = sigmoid(logit_k)."""
    below_BK, above_BK = F.logsigmoid(logits_BK), F.logsigmoid(-logits_BK)
    middle_BC = below_BK[:, 1:] + above_BK[:, :-1] + torch.log(-torch.expm1(logits_BK[:, :-1] - logits_BK[:, 1:]))
    return torch.cat([below_BK[:, :1], middle_BC, above_BK[:, -1:]], dim=1)


def who_wins(difference_B: torch.Tensor, tie: torch.Tensor | None, ties: str) -> torch.Tensor:
    """Log probabilities_BC of A, B and, with ties, tie: by Davidson (1970) or Rao and Kupper (1967)."""
    if tie is None:
        return torch.stack([F.logsigmoid(difference_B), F.logsigmoid(-difference_B)], dim=1)
    if ties == "davidson":
        half_B = difference_B / 2
        total_B = torch.logaddexp(torch.logaddexp(half_B, -half_B), tie)
        return torch.stack([half_B - total_B, -half_B - total_B, tie - total_B], dim=1)
    threshold = F.softplus(tie)
    first_B, second_B = F.logsigmoid(difference_B - threshold), F.logsigmoid(-difference_B - threshold)
    return torch.stack([first_B, second_B, torch.expm1(2 * threshold).log() + first_B + second_B], dim=1)
