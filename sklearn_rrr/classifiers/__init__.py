"""Image classifiers, and the base classes that they share."""
