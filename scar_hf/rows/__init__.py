"""Rows of any format, in memory or on disk -> instructions and responses."""
