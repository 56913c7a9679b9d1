"""Hydra-configured sweeps over quantised Danube language models."""

__version__ = "0.1.0"
