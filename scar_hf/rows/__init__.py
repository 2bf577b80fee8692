"""Reads instructions and responses from rows of any format, in memory or on disk."""
