"""Files written from a run: reports, Optuna studies, and converted weights."""
