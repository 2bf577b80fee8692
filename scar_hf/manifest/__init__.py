"""The manifest of an output: where its rows come from, how they were selected, and how to reproduce the selection."""
