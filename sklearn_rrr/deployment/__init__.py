"""Save, load and export fitted classifiers, with and without torch."""
