"""Which form X has: everything that people hold images in, and what is no batch."""

import io
from collections import deque
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from sklearn_rrr.images.decoding import BadImages
from sklearn_rrr.images.forms import DatasetImages, sort_input

PATHS = ["a.png", "b.png"]
PICTURE = Image.new("RGB", (4, 3))
ARRAYS = [np.zeros((4, 3), np.uint8), np.zeros((5, 6, 3), np.uint8)]


class Pairs(Dataset):
    """A Dataset of (image, label), some of which cannot be read."""

    def __init__(self, items, broken=()):
        self.items, self.broken, self.asked = items, broken, []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.asked.append(i)
        if i in self.broken:
            raise OSError(f"item {i} is broken")
        return self.items[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([PICTURE])


def object_array(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def object_series(items):
    return pd.Series(items, dtype=object)


@pytest.mark.parametrize(
    "X",
    [
        PATHS,
        tuple(PATHS),
        deque(PATHS),
        np.array(PATHS),
        np.array(PATHS, dtype=object),
        np.array(PATHS)[:, np.newaxis],
        pd.Series(PATHS, index=[7, 9]),
        pd.Series(PATHS, dtype="string"),
        pd.Series(PATHS, dtype="category"),
        pd.Index(PATHS),
        pd.DataFrame({"path": PATHS}),
        pd.DataFrame({"path": PATHS}, dtype="category"),
        list(zip(PATHS, [0, 1], strict=True)),
    ],
    ids=lambda X: type(X).__name__,
)
def test_paths(X):
    assert sort_input(X) == ("items", PATHS)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_with_a_column_of_paths_names_it(library):  # fault 72
    frame = pytest.importorskip(library).DataFrame({"size": [1, 2], "file": ["a.png", "b.png"]})
    with pytest.raises(ValueError, match=r"'file' contains images or paths.*X\['file'\]"):
        sort_input(frame)


@pytest.mark.parametrize(
    "X",
    [
        list(map(Path, PATHS)),
        [PICTURE, PICTURE],
        ARRAYS,
        list(map(torch.tensor, ARRAYS)),
        [PATHS[0], PICTURE],
        [None, PATHS[0]],
        [float("nan"), PATHS[0]],
    ],
)
@pytest.mark.parametrize("wrap", [list, object_array, object_series], ids=lambda w: w.__name__)
def test_images_one_by_one(X, wrap):  # fault 7
    kind, items = sort_input(wrap(X))
    assert kind == "items"
    assert all(item is given for item, given in zip(items, X, strict=True))


@pytest.mark.parametrize("label", [1, "cat", np.int64(1), torch.tensor(1), np.zeros(3)])
def test_pairs_that_a_search_takes_from_a_dataset(label):
    assert sort_input([(PICTURE, label)] * 2) == ("items", [PICTURE] * 2)


def test_nested_lists():  # fault 7
    equal = [[[0, 255], [255, 0]]] * 3
    kind, array = sort_input(equal)
    assert (kind, array.shape) == ("array", (3, 2, 2))
    kind, items = sort_input([*equal, [[1, 2, 3]]])  # of mixed sizes
    assert (kind, [item.shape for item in items]) == ("items", [(2, 2)] * 3 + [(1, 3)])


def test_object_array_of_equal_sizes():  # fault 7
    kind, array = sort_input(np.array([ARRAYS[0] + 7] * 2, dtype=object))
    assert (kind, array.dtype.kind, array.shape) == ("array", "i", (2, 4, 3))
    assert (array == 7).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float64, torch.bool])
def test_tensor(dtype):  # fault 14
    tensor = torch.ones((2, 3, 4, 4), dtype=dtype)
    kind, array = sort_input(tensor.requires_grad_(dtype.is_floating_point))
    assert (kind, type(array), array.shape) == ("array", np.ndarray, (2, 3, 4, 4))
    assert (array == 1).all()


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((2, 5)),
        [[0, 1], [2, 3]],
        [np.zeros(3), np.zeros(3)],
        pd.DataFrame({"a": [0, 1]}),
        sparse.csr_array(np.eye(3)),
        [1, 2],
        [[1, 2], [3]],
    ],
    ids=lambda X: type(X).__name__,
)
def test_rows_are_left_to_scikit_learn(X):
    kind, rows = sort_input(X)
    assert kind == "rows"
    assert rows is X or rows == X


@pytest.mark.parametrize("X", [[], (), np.array([]), pd.Series([], dtype=object)])
def test_empty(X):  # fault 1
    assert sort_input(X) == ("items", [])


@pytest.mark.parametrize("X", ["a.png", b"a.png", Path("a.png"), PICTURE])
def test_one_image(X):  # fault 10
    with pytest.raises(TypeError, match=f"got one {type(X).__name__}.*needs the batch axis"):
        sort_input(X)


@pytest.mark.parametrize(
    "X",
    [
        iter(PATHS),
        Path().glob("*.png"),
        {"a": 1},
        DataLoader(TensorDataset(torch.eye(2))),
        Stream(),
    ],
    ids=lambda X: type(X).__name__,
)
def test_no_batch(X):
    with pytest.raises(
        TypeError, match=rf"torch Dataset; got a {type(X).__name__}. Pass list\(X\)"
    ):
        sort_input(X)


@pytest.mark.parametrize("item", [io.BytesIO(), b"\xff\xd8", None, {}])
def test_items_of_no_use(item):
    with pytest.raises(TypeError, match=f"got items of type {type(item).__name__}"):
        sort_input([item, item])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 3, 3), complex), "Complex data not supported"),  # fault 11
        (torch.zeros((2, 3, 3), dtype=torch.complex64), "Complex data not supported"),
        (np.full((2, 3, 3), "a"), "Images must be numbers; got an array of <U1"),
        (np.full((2, 3, 3), None), "Images must be numbers; got an array of object"),
    ],
)
def test_no_numbers(X, message):
    with pytest.raises(ValueError, match=message):
        sort_input(X)


def test_masked_values_are_not_dropped():
    X = np.ma.masked_array(np.zeros((2, 3, 3)), mask=False)
    assert sort_input(X)[0] == "array"
    X[0, 0, 0] = np.ma.masked
    with pytest.raises(ValueError, match=r"X has masked values.*call \.filled"):
        sort_input(X)


def masked():
    return np.ma.masked_array(np.zeros((2, 3, 3)), mask=[[[1, 0, 0]] * 3, [[0, 0, 0]] * 3])


@pytest.mark.parametrize("wrap", [list, object_series, Pairs])
def test_masked_values_of_single_images(small, digits, wrap):
    fitted = small(max_epochs=1).fit(digits[0] / 255, digits[1])
    with pytest.raises(BadImages, match=r"1 of 2 .*\n.*image 0: it has masked values"):
        fitted.predict(wrap([*masked()]))


def test_masked_values_of_rows():
    with pytest.raises(ValueError, match="item 0 of X has masked values"):
        sort_input(list(masked().reshape(2, 9)))


def complex_images():
    return torch.complex(torch.rand(2, 4, 4), -torch.rand(2, 4, 4)).conj()


TENSORS = {
    "meta": lambda: torch.zeros((2, 4, 4), device="meta"),
    "sparse_coo": lambda: torch.eye(4).to_sparse(),
    "sparse_csr": lambda: torch.eye(4).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.rand(2, 4, 4), 1 / 255, 0, torch.quint8),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(4, 4)] * 2, layout=torch.jagged),
}


@pytest.mark.filterwarnings("ignore:torch.quantize", "ignore:Sparse CSR tensor support")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_no_array_can_hold(small, digits, kind):
    tensor = TENSORS[kind]()
    with pytest.raises(TypeError, match=f"X is a tensor of the kind '{kind}'; pass a dense one"):
        sort_input(tensor)
    fitted = small(max_epochs=1).fit(*digits)
    with pytest.raises(BadImages, match=f"image 0: it is a tensor of the kind '{kind}'"):
        fitted.predict([tensor])


def test_tensors_that_are_views():
    view = complex_images().imag  # with the negative bit
    assert view.is_neg()
    np.testing.assert_array_equal(sort_input(view)[1], view.resolve_neg().numpy())
    with pytest.raises(ValueError, match="Complex data not supported"):
        sort_input(complex_images())
    kind, rows = sort_input(list(torch.eye(3, requires_grad=True)))
    assert kind == "rows"
    np.testing.assert_array_equal(rows, np.eye(3))


# -------------------------------------------------------------------- columns of one frame


NESTED = [[[0, 255, 3], [255, 0, 7]], [[1, 2, 3], [4, 5, 6]]]


def column_of(library, frame, items):
    module = pytest.importorskip(library)
    return module.DataFrame({"image": items}) if frame else module.Series(items)


@pytest.mark.parametrize("frame", [False, True], ids=["Series", "frame"])
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_nested_lists(library, frame):
    kind, array = sort_input(column_of(library, frame, NESTED))
    assert kind == "array"
    np.testing.assert_array_equal(array, NESTED)
    kind, rows = sort_input(column_of(library, frame, [[1, 2], [3, 4]]))
    assert kind == "rows"
    np.testing.assert_array_equal(np.asarray(rows), [[1, 2], [3, 4]])
    mixed = [*NESTED, [[1, 2]]]
    kind, items = sort_input(column_of(library, frame, mixed))
    assert [item.shape for item in items] == [(2, 3), (2, 3), (1, 2)]


def test_memory_views():
    X = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    kind, array = sort_input(memoryview(X))
    assert kind == "array"
    np.testing.assert_array_equal(array, X)


def test_columns_that_must_be_opened_by_the_user():
    polars = pytest.importorskip("polars")
    with pytest.raises(TypeError, match=r"got a LazyFrame\. Pass X\.collect\(\)"):
        sort_input(polars.DataFrame({"a": PATHS}).lazy())
    with pytest.raises(TypeError, match=r"got a MultiIndex\. Pass X\.get_level_values\(0\)"):
        sort_input(pd.MultiIndex.from_arrays([PATHS]))


def numbers_in(names):
    return pd.DataFrame(np.eye(3)[:2], columns=list(names))


@pytest.mark.parametrize(
    ("frame", "kind", "message"),
    [
        (numbers_in("abc").astype(str), ValueError, r"strings, such as '1.0' in the column 'a'"),
        (numbers_in("aab"), ValueError, "several columns of the same name"),
        (numbers_in("abc").astype(pd.SparseDtype(float, 1.0)), TypeError, "sparse columns"),
        (numbers_in("abc").astype(pd.SparseDtype(float)), TypeError, "sparse columns"),
    ],
    ids=["strings", "duplicates", "sparse, filled with 1", "sparse"],
)
def test_frames_that_are_no_rows(frame, kind, message):
    with pytest.raises(kind, match=message):
        sort_input(frame)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_a_missing_path_is_called_missing(small, digit_paths, missing):
    paths, y = digit_paths
    column = pd.Series([*paths[:2], missing], dtype=object)
    with pytest.raises(BadImages, match=r"1 of 3 .*\n.*image 2: is missing \("):
        small(max_epochs=1).fit(column, y[:3])


# ------------------------------------------------------------------------------- Datasets


def test_dataset():
    images = DatasetImages(Pairs([(PICTURE, "b"), (PICTURE, "a")]))
    assert len(images) == 2
    assert images[1] is PICTURE
    assert images.labels().tolist() == ["b", "a"]
    tensors = DatasetImages(TensorDataset(torch.zeros(2, 3, 4, 4), torch.tensor([1, 0])))
    assert tensors.labels().tolist() == [1, 0]


@pytest.mark.parametrize("item", [PICTURE, (PICTURE,)])
def test_dataset_without_labels(item):
    images = DatasetImages(Pairs([item]))
    assert images.labels() is None
    assert images[0] is PICTURE


def test_dataset_is_selected_from_lazily():
    dataset = Pairs([(PICTURE, i) for i in range(5)])
    images = DatasetImages(dataset).select(np.array([4, 2])).select(np.array([1]))
    assert dataset.asked == []
    assert images.labels().tolist() == [2]
    assert dataset.asked == [2]


def test_dataset_that_fails():
    images = DatasetImages(Pairs([(PICTURE, 0)] * 4, broken=(1, 3)))
    with pytest.raises(ValueError, match="the Dataset raised OSError: item 1 is broken"):
        images[1]
    with pytest.raises(BadImages, match="2 of 4") as info:
        images.labels()
    assert [i for i, _ in info.value.bad] == [1, 3]


def test_paths_are_one_column_of_a_frame():
    frame = pd.DataFrame({"label": [0, 1], "path": PATHS})
    with pytest.raises(ValueError, match=r"columns, and 'path' contains .* alone: X\['path'\]"):
        sort_input(frame)
