"""Fitted classifiers as files, with and without torch."""
