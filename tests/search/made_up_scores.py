"""A scorer for tests of searches."""


class Scores:
    """Scorer that knows networks by their blocks."""

    def __init__(self, scores):
        self.scores = scores

    def __call__(self, estimator, X, y):
        return self.scores[estimator.blocks_]
