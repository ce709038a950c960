"""Training a detector: the loop, augmentation, batches, compilation, checkpoints, and the device."""
