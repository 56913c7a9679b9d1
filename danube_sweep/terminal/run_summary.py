"""The short table at the end of a run."""

from typing import Any

SHOWN_SECONDS = ("data", "load", "train", "validation")


def summary(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of the most important fields of a result."""
    validation, references, measured = result["validation"], result["references"], result["measured"]
    rows = [(f"validation {name}", f"{value:.4f}") for name, value in validation.items()]
    step = "best step", f"{result['best_step']} of {result['steps']} ({result['epochs']:.1f} epochs)"
    if not validation:
        rows.append(("validation", "none: no rows validate, and the result is the last step"))
        step = "last step", f"{result['steps']} ({result['epochs']:.1f} epochs)"
    names = {
        "uniform_log_loss": "uniform",
        "prior_log_loss": "class prior",
        "prior_mse": "always the mean",
        "bayes_log_loss": "Bayes-optimal",
    }
    held = [f"{label} {references[name]:.4f}" for name, label in names.items() if name in references]
    if held and validation:
        rows.insert(1, ("  to compare with", ", ".join(held)))
    rows += [(f"test {name}", f"{value:.4f}") for name, value in (result["test"] or {}).items()]
    rows += [
        (f"benchmark {task}", f"{one['after']:.4f}, before training {one['before']:.4f}")
        for task, one in result.get("benchmark", {}).items()
    ]
    parameters = result["parameters"]
    rows += [
        step,
        ("trained", f"{parameters['trainable']:,} parameters, backbone {parameters['backbone']:,}"),
        ("speed", f"{measured['tokens_per_s']:,.0f} tokens/s"),
        ("peak memory", f"{measured['peak_memory_bytes'] / 2**30:.2f} GiB on {measured['device']['kind']}"),
        ("time", ", ".join(f"{name} {measured['seconds'][name]:.0f} s" for name in SHOWN_SECONDS)),
    ]
    return rows
