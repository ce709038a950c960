"""Studies: noise, ladder, fidelities, replay and validation, each made of planned trainings."""
