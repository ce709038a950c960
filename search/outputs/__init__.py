"""What is written from a finished run: reports, Optuna studies, converted weights."""
