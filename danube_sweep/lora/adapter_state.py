"""An adapter's weights, out of a backbone and into it again."""

from collections.abc import Mapping

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from danube_sweep.errors import CheckpointError
from danube_sweep.lora.peft_configs import ADAPTER
from danube_sweep.model.backbone import Backbone


def prefix(backbone: Backbone) -> str:
    """PEFT's prefix of the names of a body's modules."""
    # `PeftModel` over AutoModelForCausalLM finds the blocks under `model.`, over AutoModel at the top.
    return "base_model.model.model." if backbone.lm_head is not None else "base_model.model."


def adapter_state(backbone: Backbone) -> dict[str, torch.Tensor]:
    """The adapter's weights under the names that plain `PeftModel.from_pretrained` expects."""
    state = get_peft_model_state_dict(backbone.body, adapter_name=ADAPTER)
    return {prefix(backbone) + name: value for name, value in state.items()}


def load_adapter_state(backbone: Backbone, state: dict[str, torch.Tensor]) -> None:
    """Puts saved weights back. Raises CheckpointError unless exactly the expected ones are there, all finite."""
    check_fits(adapter_state(backbone), state)
    names = {name.removeprefix(prefix(backbone)): value for name, value in state.items()}
    set_peft_model_state_dict(backbone.body, names, adapter_name=ADAPTER)


def check_fits(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    """Raises CheckpointError unless a saved adapter has exactly the expected weights, all finite."""
    wrong = sorted(expected.keys() ^ state.keys()) or [
        name for name in expected if expected[name].shape != state[name].shape or not state[name].isfinite().all()
    ]
    if wrong:
        raise CheckpointError(f"the saved adapter does not fit: {wrong[0]} is missing, of another shape or not finite")
