"""Scores -> the rows kept, and why."""
