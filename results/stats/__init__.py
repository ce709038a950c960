"""Statistics of trainings: intervals, noise between seeds, and rank correlation."""
