"""Reads annotation files of many tools, and repairs what they hold."""
