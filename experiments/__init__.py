"""Accuracy experiments: Snakemake runs the trainings, this package scores them and draws table and plot."""
