"""Decides which images are trained on and which are held out, and finds pictures on both sides."""
