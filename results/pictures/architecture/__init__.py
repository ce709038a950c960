"""Drawings of architectures as SVG: one alone, or two compared."""

from spinenas.results.pictures.architecture.drawing import Subject, draw, draw_pair

__all__ = ["Subject", "draw", "draw_pair"]
