"""Planned trainings and what they show: noise, ladder, fidelities, replay, validation."""
