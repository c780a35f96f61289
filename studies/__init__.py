"""What to try next and what to show: Optuna studies, seeded trials, reports, the command line."""
