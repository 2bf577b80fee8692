"""The manifest of an output: the origin of its rows, how they were selected, and how to reproduce the selection."""
