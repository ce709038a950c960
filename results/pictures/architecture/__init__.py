"""Architectures as pictures, one or two compared."""

from spinenas.results.pictures.architecture.drawing import Subject, draw, draw_pair

__all__ = ["Subject", "draw", "draw_pair"]
