"""The uses of a finished run: predictions, its test part, an export."""
