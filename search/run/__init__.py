"""Starts, resumes and drives a run, and makes its components."""
