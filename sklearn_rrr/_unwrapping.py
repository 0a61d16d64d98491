"""From a fitted pipeline, search, pruner or selector to the classifier inside.

Nothing is imported from the package, so that every room can use it: an image classifier is known by
its attributes.
"""

from sklearn.base import MetaEstimatorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

WRAPPERS = (Pipeline, FrozenEstimator, MetaEstimatorMixin)
KIND = "a fitted image classifier of sklearn_rrr, or a pipeline, search, pruner or selector of one"


def unwrap(estimator, *attributes, name="estimator", kind=KIND):
    """Return the outermost estimator with some attributes, and the preprocessing before it.

    Parameters
    ----------
    estimator : estimator
        Fitted. Looked into: the last step of a Pipeline, `best_estimator_` of a search,
        `estimator` of a FrozenEstimator, `estimator_` of a pruner or a BlockSelector, in any
        nesting.
    *attributes : str
        Attributes that the estimator must have, such as "module_".
    name, kind : str
        Name of the parameter and a description of its valid values, for the error.

    Returns
    -------
    found : estimator
        The outermost one with all `attributes`; never a FrozenEstimator.
    steps : list of Pipeline
        Fitted preprocessing before `found`, in order of application; "passthrough" left out.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If no estimator inside has the attributes.
    """
    layer, steps = estimator, []
    while True:
        if hasattr(layer, "predict_branches") or isinstance(layer, WRAPPERS):
            check_is_fitted(layer)
        frozen = isinstance(layer, FrozenEstimator)  # which passes on attributes from inside
        if not frozen and all(hasattr(layer, attribute) for attribute in attributes):
            return layer, steps
        if isinstance(layer, Pipeline) and _transforms(layer):
            steps.append(layer[:-1])
        inner = _look_inside(layer)
        if inner is None:
            got = type(layer).__name__
            if layer is not estimator:
                got += f" inside a {type(estimator).__name__}"
            raise TypeError(f"`{name}` must be {kind}; got a {got}.")
        layer = inner


def preprocess(steps, X):
    """Apply the preprocessing that :func:`unwrap` returned."""
    for step in steps:
        X = step.transform(X)
    return X


def refuse_steps(steps, name="estimator"):
    """Raise a ValueError if a file of the classifier would lack preprocessing steps."""
    if steps:
        names = [step_name for pipeline in steps for step_name in _transforms(pipeline, last=True)]
        raise ValueError(
            f"`{name}` is a pipeline whose steps {names} would not be in the file. Pass its last "
            "step, pipeline[-1], and preprocess the images yourself, or save the pipeline with "
            "joblib.dump."
        )


def _transforms(pipeline, last=False):
    """Return the names of the steps that change X; the last one counts only if `last`."""
    steps = pipeline.steps if last else pipeline.steps[:-1]
    return [name for name, step in steps if step is not None and step != "passthrough"]


def _look_inside(estimator):
    """Return the fitted estimator one layer further in, or None."""
    if isinstance(estimator, FrozenEstimator):
        return estimator.estimator
    if isinstance(estimator, Pipeline):
        return estimator[-1]
    if hasattr(estimator, "best_estimator_"):
        return estimator.best_estimator_
    # Others of scikit-learn with `estimator_` hold a template, or change its input or output.
    if hasattr(estimator, "predict_branches"):
        return getattr(estimator, "estimator_", None)
    return None
