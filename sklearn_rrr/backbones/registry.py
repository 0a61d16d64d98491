"""Registry of backbones by name."""

_REGISTRY = {}


# --------------------------------------------------------------------------- registry


def register_backbone(name):
    """Register a function that returns a `Backbone` with random weights under `name`.

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
        If the name is already registered.

    Examples
    --------
    >>> from sklearn_rrr import make_resnet, register_backbone
    >>> from sklearn_rrr.backbones.basic_block import BasicBlock
    >>> @register_backbone("tiny10")
    ... def tiny10():
    ...     return make_resnet("tiny10", BasicBlock, (1, 1, 1, 1), planes=(8, 8, 16, 16))
    """

    def decorate(function):
        if name in _REGISTRY:
            raise ValueError(f"The backbone {name!r} is already registered; choose another name.")
        _REGISTRY[name] = function
        return function

    return decorate


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
