"""The memory and time of a trial from its config alone, and whether it fits a device. No torch."""
