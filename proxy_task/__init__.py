"""How good an architecture is: a short RetinaNet training on COCO-format data."""
