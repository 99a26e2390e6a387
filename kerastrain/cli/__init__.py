"""The command line: absl flags, one module per command; the only place that reads flags."""
