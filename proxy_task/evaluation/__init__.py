"""Detections of a trained network and their COCO metrics."""
