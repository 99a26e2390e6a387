"""Further formats of a published version: made, reloaded by their own runtimes, and compared."""
