"""Variable names, layout and checkpoints of the two Google code bases."""
