"""The published version: SavedModel, .keras, manifest, and the check before publishing."""
