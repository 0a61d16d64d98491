"""Registering backbones by name, once or twice."""

import importlib
import sys

import pytest

from sklearn_rrr.backbones import registry
from sklearn_rrr.backbones.registry import list_backbones, make_backbone, register_backbone

MODULE = """
from sklearn_rrr.backbones.registry import make_backbone, register_backbone

@register_backbone("my_backbone")
def build():
    return make_backbone("tiny{}")
"""


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


@pytest.fixture
def load_module(tmp_path, monkeypatch):
    """Return a function that writes a module with a backbone and imports it anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files change within a second

    def load(suffix=""):
        (tmp_path / "my_backbones.py").write_text(MODULE.format(suffix))
        monkeypatch.delitem(sys.modules, "my_backbones", raising=False)
        importlib.invalidate_caches()
        return importlib.import_module("my_backbones")

    return load


def test_a_module_may_be_imported_twice(load_module):
    first, second = load_module(), load_module()
    assert first.build is not second.build
    assert list_backbones().count("my_backbone") == 1
    assert make_backbone("my_backbone").name == "my_backbone"


def test_changed_code_is_another_backbone(load_module):
    load_module()
    with pytest.raises(ValueError, match="'my_backbone' is already registered; choose another"):
        load_module("_basic")
    assert make_backbone("my_backbone").depths == make_backbone("tiny").depths


def test_other_functions_with_the_same_code_are_refused():
    def make(backbone):
        @register_backbone("closed")
        def build():
            return make_backbone(backbone)

        return build

    assert register_backbone("closed")(make("tiny"))  # the same object
    with pytest.raises(ValueError, match="'closed' is already registered"):
        make("tiny_basic")
    names = ("one", "other")
    one, other = (eval("lambda: make_backbone('tiny')", {"__name__": name}) for name in names)
    register_backbone("lambda")(one)
    with pytest.raises(ValueError, match="'lambda' is already registered"):
        register_backbone("lambda")(other)
