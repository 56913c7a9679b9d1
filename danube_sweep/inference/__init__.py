"""What a finished run is used for: predictions, its test part, an export."""
