"""The loop and all that it stands on: state, steps, executor, evaluation, checkpoints."""
