"""What a trial is, as data: its fields, what may be in them, and its identity. No torch."""
