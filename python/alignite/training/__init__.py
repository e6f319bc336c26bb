"""The loop and what it stands on: optimizers, checkpoints, metrics, where updates come from."""
