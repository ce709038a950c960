"""Weights files: detectors as safetensors, backbones for other programs."""
