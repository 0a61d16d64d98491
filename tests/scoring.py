"""Predictions of files by a saved model, for workers that import this module."""

from functools import lru_cache

from sklearn_rrr import load


@lru_cache(maxsize=1)
def load_model(path):
    return load(path)


def predict(paths, model):
    """Return the probabilities of files, as lists."""
    return load_model(model).predict_proba(list(paths)).tolist()


def count_loads():
    """Return how often this process has loaded a model."""
    return load_model.cache_info().misses
