"""The arithmetic of heads, in plain torch: training uses it, and an export carries this very file as head.py.

`ExportedHead` goes from a backbone's last hidden states to logits. It needs torch and safetensors, and beside this file
head.json (the pooling, the layers, the classes) and head.safetensors (the weights).

Axes: B rows, T tokens, H hidden width, C classes, K texts of a row; K thresholds between ordered classes.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional as F


class ExportedHead:
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
                return ordered_log_probabilities(steps_K.cumsum(dim=0) - x)
            case "bradley_terry":
                first_B, second_B = x.view(2, -1)
                tie = self._weight("tie", x) if layer["weights"] else None
                return preference_log_probabilities(first_B - second_B, tie, layer["ties"])
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
                return last_state(hidden_BTH, mask_BT)
            case "mean":
                return masked_mean(hidden_BTH, mask_BT)
            case "attention":
                return attended(hidden_BTH, mask_BT, self._weight("pooler.query_H", hidden_BTH))
            case "tokens":
                return hidden_BTH
            case "pair" | "answer":
                if spans_BK2 is None or sizes_BK is None:
                    raise ValueError(f"{name} pooling needs spans and sizes")
                return (pair_vector if name == "pair" else answer_vector)(hidden_BTH, spans_BK2, sizes_BK)
        raise ValueError(f"head.json: unknown pooling {name}")


def last_state(hidden_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """The state of each row's last token, whichever side the padding is on."""
    last_B = (torch.arange(mask_BT.shape[1], device=mask_BT.device) * mask_BT).argmax(dim=1)
    return hidden_BTH[torch.arange(len(last_B), device=last_B.device), last_B]


def masked_mean(hidden_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """The mean over the tokens under the mask; zero without any."""
    weights_BT = mask_BT.to(hidden_BTH.dtype)
    return torch.einsum("bt,bth->bh", weights_BT, hidden_BTH) / weights_BT.sum(dim=1, keepdim=True).clamp(min=1)


def attended(hidden_BTH: torch.Tensor, mask_BT: torch.Tensor, query_H: torch.Tensor) -> torch.Tensor:
    """The mean weighted by a softmax, over the tokens under the mask, of their product with the query."""
    scores_BT = (hidden_BTH @ query_H).masked_fill(~mask_BT, float("-inf"))
    return torch.einsum("bt,bth->bh", scores_BT.softmax(dim=1), hidden_BTH)


def answer_vector(
    hidden_BTH: torch.Tensor, spans_BK2: torch.Tensor, sizes_BK: torch.Tensor, text: int = -1
) -> torch.Tensor:
    """[mean, l] of one of a row's texts: l is log(1 + size), its tokens before truncation, times sqrt(H).

    The factor makes it weigh like a vector of width H. An empty mean is zero.
    """
    positions_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
    mask_BT = (positions_T >= spans_BK2[:, text, :1]) & (positions_T < spans_BK2[:, text, 1:])
    lengths_B = sizes_BK[:, text].to(hidden_BTH.dtype).log1p() * hidden_BTH.shape[2] ** 0.5
    return torch.cat([masked_mean(hidden_BTH, mask_BT), lengths_B.unsqueeze(1)], dim=1)


def pair_vector(hidden_BTH: torch.Tensor, spans_BK2: torch.Tensor, sizes_BK: torch.Tensor) -> torch.Tensor:
    """[A - B, |A - B|, l, |l|] of the last two texts A and B: their means, and l, how much longer A is."""
    first_BH1, second_BH1 = (answer_vector(hidden_BTH, spans_BK2, sizes_BK, text) for text in (-2, -1))
    difference_BH1 = first_BH1 - second_BH1
    means_BH, longer_B1 = difference_BH1[:, :-1], difference_BH1[:, -1:]
    return torch.cat([means_BH, means_BH.abs(), longer_B1, longer_B1.abs()], dim=1)


def ordered_log_probabilities(logits_BK: torch.Tensor) -> torch.Tensor:
    """Log probabilities_BC of ordered classes, P(class <= k) = sigmoid(logit_k), the logits rising.

    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)) loses no digits far from 0.
    """
    below_BK, above_BK = F.logsigmoid(logits_BK), F.logsigmoid(-logits_BK)
    middle_BC = below_BK[:, 1:] + above_BK[:, :-1] + torch.log(-torch.expm1(logits_BK[:, :-1] - logits_BK[:, 1:]))
    return torch.cat([below_BK[:, :1], middle_BC, above_BK[:, -1:]], dim=1)


def preference_log_probabilities(difference_B: torch.Tensor, tie: torch.Tensor | None, ties: str) -> torch.Tensor:
    """Log probabilities_BC of A, B and, with ties, tie, from the difference of the scores.

    Davidson (1970): A, B and tie weigh exp(d/2), exp(-d/2) and exp(t). Rao and Kupper (1967): A wins with
    sigmoid(d - t), B with sigmoid(-d - t), and else it is a tie; t = softplus(tie).
    """
    if tie is None:
        return torch.stack([F.logsigmoid(difference_B), F.logsigmoid(-difference_B)], dim=1)
    if ties == "davidson":
        half_B = difference_B / 2
        total_B = torch.logaddexp(torch.logaddexp(half_B, -half_B), tie)
        return torch.stack([half_B - total_B, -half_B - total_B, tie - total_B], dim=1)
    if ties == "rao_kupper":
        threshold = F.softplus(tie)
        first_B, second_B = F.logsigmoid(difference_B - threshold), F.logsigmoid(-difference_B - threshold)
        tie_B = torch.expm1(2 * threshold).log() + (first_B + second_B)
        return torch.stack([first_B, second_B, tie_B], dim=1)
    raise ValueError(f"unknown rule of ties {ties}")
