"""The classifiers that users fit, and what all classifiers share."""
