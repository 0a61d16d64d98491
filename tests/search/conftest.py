import pytest


@pytest.fixture
def one_epoch(small):
    return small(max_epochs=1, n_branches=1, trainable="all")
