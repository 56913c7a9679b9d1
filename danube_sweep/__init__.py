"""Hydra-configured sweeps over quantised Danube language models."""

__version__ = "0.2.0"
