"""Decides from scores which rows to keep, and explains why."""
