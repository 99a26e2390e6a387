"""Ready-to-run recipes, one file each: `--recipe=NAME`."""
