"""Drawings of architectures, and charts, as SVG or PNG."""
