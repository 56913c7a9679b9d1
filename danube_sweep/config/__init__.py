"""A trial as data: its fields, their checks, and its identity. No torch."""
