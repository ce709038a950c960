"""Statistics of trainings: intervals, seed noise, intraclass and rank correlation, and a paired bootstrap of AP."""
