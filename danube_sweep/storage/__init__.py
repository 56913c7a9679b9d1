"""The files on disk: run folders, sweep folders, checkpoints and predictions."""
