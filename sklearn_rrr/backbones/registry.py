"""Registry of backbones by name."""

_REGISTRY = {}


# --------------------------------------------------------------------------- registry


def register_backbone(name):
    """Register a function that returns a `Backbone` with random weights under `name`.

    A module that is imported twice may register its functions again.

    Parameters
    ----------
    name : str
        Name by which users select the backbone.

    Returns
    -------
    decorator : callable
        Registers the function and returns it unchanged.

    Raises
    ------
    ValueError
        If the name is already registered for another function.

    Examples
    --------
    >>> from sklearn_rrr import make_resnet, register_backbone
    >>> from sklearn_rrr.backbones.basic_block import BasicBlock
    >>> @register_backbone("tiny10")
    ... def tiny10():
    ...     return make_resnet("tiny10", BasicBlock, (1, 1, 1, 1), planes=(8, 8, 16, 16))
    """

    def decorate(function):
        if name in _REGISTRY and not _are_equal(function, _REGISTRY[name]):
            raise ValueError(f"The backbone {name!r} is already registered; choose another name.")
        _REGISTRY[name] = function
        return function

    return decorate


def _are_equal(one, other):
    """Tell whether two functions have the same module, name and code, and are no closures."""
    if one is other:
        return True
    names = ("__module__", "__qualname__", "__code__", "__defaults__", "__kwdefaults__")
    plain = all(hasattr(f, "__code__") and not f.__closure__ for f in (one, other))
    return plain and all(getattr(one, name) == getattr(other, name) for name in names)


def list_backbones():
    """List the names that `backbone` accepts.

    Returns
    -------
    names : list of str
        Sorted names.

    Examples
    --------
    >>> from sklearn_rrr import list_backbones
    >>> "resnet152" in list_backbones()
    True
    """
    return sorted(_REGISTRY)


def make_backbone(name):
    """Build a registered backbone with random weights.

    Raises
    ------
    ValueError
        If the name is not registered; lists the known names.
    """
    if not isinstance(name, str) or name not in _REGISTRY:
        raise ValueError(f"`backbone` must be one of {', '.join(list_backbones())}; got {name!r}.")
    backbone = _REGISTRY[name]()
    backbone.name = name  # the registered name, for rebuilding it
    return backbone
