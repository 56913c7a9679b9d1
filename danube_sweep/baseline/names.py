"""The baselines by name, for those who import no torch."""

NAMES = {"tfidf": True, "lengths": False}
"""Whether one reads words."""
