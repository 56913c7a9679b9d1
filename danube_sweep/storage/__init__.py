"""What is on disk: run folders, sweep folders, checkpoints, predictions."""
