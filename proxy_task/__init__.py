"""The proxy task: evaluates an architecture by a short RetinaNet training on COCO-format data."""
