"""Graphs of a ranker: torch.export and ONNX, for batches and texts of any size."""
