"""Sphinx: landing page, user guide, gallery of examples, and reference from the docstrings."""

import inspect
import sys
from pathlib import Path

import sklearn_rrr

# An example draws the images of `pretraining`, which is outside the package.
sys.path.insert(0, str(Path(sklearn_rrr.__file__).parents[1]))

project = "sklearn_rrr"
author = "the sklearn_rrr developers"
version = release = sklearn_rrr.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_inventories", "_templates", "auto_examples/*.ipynb"]
templates_path = ["_templates"]
# Docstrings inherited from scikit-learn refer to labels and terms of its own documentation.
suppress_warnings = ["ref.ref", "ref.term"]

# Reference: one page per class, with all its methods.
autosummary_generate = True
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
numpydoc_class_members_toctree = False
BLOCKS = ["block.Block", "basic_block.BasicBlock", "bottleneck.Bottleneck"]
BLOCKS += ["inverted_residual.InvertedResidual", "inverted_residual.LastConvolution"]
MODULES = ["sklearn_rrr.Backbone", *(f"sklearn_rrr.backbones.{name}" for name in BLOCKS)]
# torch documents what its modules inherit.
numpydoc_show_inherited_class_members = dict.fromkeys(MODULES, False)
copybutton_exclude = ".linenos, .gp, .go"

# Each site is tried first; without a network, the links come from the short lists in _inventories,
# in Sphinx's plain-text format. Add names there that docstrings or pages refer to.
SITES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "sklearn": "https://scikit-learn.org/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "skorch": "https://skorch.readthedocs.io/en/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "matplotlib": "https://matplotlib.org/stable/",
}
intersphinx_mapping = {
    name: (site, (None, f"_inventories/{name}.txt")) for name, site in SITES.items()
}
intersphinx_timeout = 5

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "ignore_pattern": r"(?<!_)quickstart\.py",  # make demo, which takes minutes
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sklearn_rrr",),
    "reference_url": {"sklearn_rrr": None},
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "within_subsection_order": "ExampleTitleSortKey",
}

html_theme = "pydata_sphinx_theme"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sourcelink = False
html_sidebars = {"quickstart": [], "faq": [], "changes": []}
html_theme_options = {
    "logo": {"text": f"{project} {version}"},
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}
copyright = f"{author}, BSD-3-Clause"


def skip_fields(app, what, name, obj, skip, options):
    """Leave out dataclass fields, which the section Parameters of the class documents."""
    if what != "class" or inspect.isroutine(obj) or inspect.isdatadescriptor(obj):
        return None
    return not hasattr(obj, "func")  # a cached property


def find_public_name(app, env, node, contnode):
    """Resolve public names in docstrings of modules in which they are not defined."""
    if node.get("refdomain") != "py":
        return None
    name = f"sklearn_rrr.{node['reftarget']}"
    place = (env, node["refdoc"], app.builder, node["reftype"])
    return env.domains["py"].resolve_xref(*place, name, node, contnode)


def setup(app):
    """Register the handlers of Sphinx's events."""
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("missing-reference", find_public_name)
