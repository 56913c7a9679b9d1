"""What a trial needs, from its config alone: bytes by kind, seconds per step, and what fits a device. No torch."""
