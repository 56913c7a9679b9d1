"""Functions that a library has compiled while it is imported are compiled when they are first called."""

import sys
from typing import Any

import torch
import warm

from danube_sweep.model.compiled_later import compiled_later


def test_a_function_is_compiled_by_torch_at_its_first_call_and_only_then() -> None:
    graphs: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    before = torch.compile
    with compiled_later():

        @torch.compile(backend=backend, dynamic=False)
        def doubled(given: torch.Tensor) -> torch.Tensor:
            return given * 2

        plain = torch.compile(doubled.__wrapped__, backend=backend)  # type: ignore[attr-defined]
    assert torch.compile is before and graphs == []
    for function in (doubled, plain):
        assert torch.equal(function(torch.arange(3.0)), torch.tensor([0.0, 2.0, 4.0]))
    assert torch.equal(doubled(torch.ones(3)), torch.full((3,), 2.0)) and len(graphs) == 2


def test_what_trains_imports_no_inductor(tmp_path: Any) -> None:
    # compile_fx alone is looked for: it costs most. Lightning imports torch._dynamo.
    asked = "import sys, bitsandbytes, danube_sweep.training.run; print('torch._inductor.compile_fx' in sys.modules)"
    done = warm.run("-c", asked, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("False\n", 0), sys.version
