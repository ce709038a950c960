"""Reads image files, and caches them decoded."""
