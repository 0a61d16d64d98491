"""
===========================
Looking at the worst errors
===========================

An accuracy says how many images are misread, a confusion matrix which classes are confused. The
pictures of the worst errors often say why: wrong labels, bad images, or classes that look alike.
"""

# %%
# The classifier learns to read digits from 300 examples. Three of the remaining ones get a wrong
# label, as happens in any data set.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split

from sklearn_rrr import RRRNetClassifier
from sklearn_rrr.plotting import ActivationMapDisplay, ErrorGalleryDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, train_size=300, test_size=700, stratify=y, random_state=0
)
mislabelled = [100, 200, 300]
y_test[mislabelled] = (y_test[mislabelled] + 5) % 10

clf = RRRNetClassifier(fine_tuning="one_pass", image_size=64, random_state=0)
clf.fit(X_train, y_train)
print(f"Accuracy: {clf.score(X_test, y_test):.3f}")

# %%
# The confusion matrix of scikit-learn takes the classifier as it is.

ConfusionMatrixDisplay.from_estimator(clf, X_test, y_test, colorbar=False)

# %%
# The gallery shows the misread images whose label has the smallest probability. The wrong labels
# come first: nobody would read these digits as their labels say.

# sphinx_gallery_thumbnail_number = 2
display = ErrorGalleryDisplay.from_estimator(clf, X_test, y_test, n=12)
print(f"{display.n_errors} errors; the worst are at {display.indices[:5]}")

# %%
# The attribute ``indices`` leads back to the images, so that labels can be corrected. The remaining
# errors are the classifier's own. Activation maps show which pixels spoke for the predicted class,
# in red, and against it, in blue.

own = [i for i in display.indices if i not in mislabelled]
ActivationMapDisplay.from_estimator(clf, X_test[own[:5]])
plt.show()
