"""PEFT and, with it, bitsandbytes, imported without torch's compiler. The package's first import: it takes 2 s less."""

from danube_sweep.model.compiled_later import compiled_later

with compiled_later():
    import peft  # noqa: F401
