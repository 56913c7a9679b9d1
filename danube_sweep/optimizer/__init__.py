"""The update rule and the learning rate over time."""
