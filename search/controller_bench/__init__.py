"""Compares controllers on synthetic objectives that take microseconds."""
