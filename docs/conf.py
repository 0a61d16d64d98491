"""Sphinx: the user guide and the reference from the docstrings."""

import sklearn_rrr

project = "sklearn_rrr"
author = "the sklearn_rrr developers"
version = release = sklearn_rrr.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
numpydoc_show_class_members = False
autosummary_generate = True
exclude_patterns = ["_build"]
html_theme = "alabaster"
# Docstrings inherited from scikit-learn link to its own documentation.
suppress_warnings = ["ref.ref"]
