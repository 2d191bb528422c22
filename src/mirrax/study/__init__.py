"""Studies: recipes, runs, tuning, comparison and reproduction; clocks, files and printing."""
