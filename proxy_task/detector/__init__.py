"""RetinaNet: anchors, boxes, matching, losses, non-maximum suppression, and the module itself."""
