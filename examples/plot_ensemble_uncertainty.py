"""
======================================
Detecting unknown classes by ensembles
======================================

Branches trained on the same digits disagree on a digit that was not in the training set. Their
mutual information separates such images from the others without labels. Three further plots show
how much the branches agree, how well their probabilities are calibrated, and how the cost of the
ensemble compares with that of one network of the same size.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from sklearn_rrr import RRRNetClassifier
from sklearn_rrr.plotting import BranchAgreementDisplay, CostRadarDisplay, ReliabilityDisplay

LEFT_OUT = 4
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, train_size=500, test_size=500, stratify=y, random_state=0
)
known, seen = y_train != LEFT_OUT, y_test != LEFT_OUT

# Train two networks with about the same number of parameters on nine of the ten digits.

models, errors = {"8 branches": {"n_branches": 8}, "unsplit": {"n_branches": 1}}, {}
for name, parameters in models.items():
    clf = RRRNetClassifier(
        "synth50", blocks=(1, 1, 1, 1), image_size=32, max_epochs=8, random_state=0, **parameters
    )
    models[name] = clf.fit(X_train[known], y_train[known])
    errors[name] = 1 - clf.score(X_test[seen], y_test[seen])
    print(f"{name}: {100 * errors[name]:.1f} % of {seen.sum()} digits are misread")

# Images of the excluded digit should have larger mutual information: 1 is perfect, 0.5 is chance.

ensemble = models["8 branches"]
information = ensemble.predict_uncertainty(X_test)["mutual_information"]
auroc = roc_auc_score(~seen, information)
print(f"AUROC of mutual information for the digit {LEFT_OUT}, never seen: {auroc:.3f}")

# Draw four plots; the radar chart needs polar axes.

figure, axes = plt.subplot_mosaic(
    [["agreement", "reliability"], ["information", "costs"]],
    per_subplot_kw={"costs": {"projection": "polar"}},
    figsize=(11, 10),
    layout="constrained",
)
BranchAgreementDisplay.from_estimator(ensemble, X_test, ax=axes["agreement"])
ReliabilityDisplay.from_estimator(
    ensemble, X_test[seen], y_test[seen], n_bins=8, ax=axes["reliability"]
)
groups = {"digits of the training": information[seen], f"a {LEFT_OUT}": information[~seen]}
axes["information"].hist(list(groups.values()), bins=20, density=True, label=list(groups))
axes["information"].set(xlabel="mutual information in nats", ylabel="density")
axes["information"].legend()
CostRadarDisplay.from_estimators(models, errors=errors, ax=axes["costs"], repeats=10)
for name, ax in axes.items():
    ax.set_title(f"{name} (AUROC {auroc:.2f})" if name == "information" else name)
plt.show()
