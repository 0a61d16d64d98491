"""Pruners: score, remove, retrain."""
