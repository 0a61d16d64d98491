"""Backbones: pre-trained networks of modular blocks to reuse.

The "Reuse" step of RRR-Net (Sun et al. 2023, section 3.1). A backbone has a stem, four phases of
blocks (conv2_x to conv5_x, with strides 4, 8, 16 and 32), a head, and the input format it was
trained on.
"""

from collections import OrderedDict
from itertools import pairwise
from numbers import Integral

from torch import nn

from sklearn_rrr.backbones.block import initialise
from sklearn_rrr.backbones.fine_tuning import FineTuning

PHASES = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class HalfTurn(nn.Module):
    """Turn images by 180 degrees: (B, C, H, W) -> (B, C, H, W).

    TensorFlow's padding "SAME" puts an odd row or column of zeros below or to the right, which
    torch's convolutions cannot do. On turned images, with turned kernels, the same zeros are above
    and to the left, where an ordinary padding puts them at strides of 1 and 2. A separate padding
    would take a sixth of the time of a prediction.
    """

    def forward(self, x):
        return x.flip((2, 3))


class Backbone(nn.Module):
    """Network of a stem, four phases of blocks and a head, and the input format that it expects.

    Parameters
    ----------
    name : str
        Name shown in messages.
    stem : dict of str to torch.nn.Module
        Layers before the first phase, such as a convolution and its norm.
    rows : sequence of 4 sequences of Row
        Rows of blocks of each phase.
    image_size : int, default=128
        Height and width, in pixels, to which images are resized.
    mean, std : tuple of 3 float, default=ImageNet's
        Mean and standard deviation that normalise RGB in [0, 1].
    n_classes : int, default=1000
        Number of outputs of the pre-trained head.
    fine_tuning : FineTuning or None, default=None
        Settings recommended for this backbone; None recommends the defaults.
    fine_tuning_whole : FineTuning or None, default=None
        Settings recommended if all blocks are kept, unsplit; None recommends `fine_tuning`.
    image_size_whole : int or None, default=None
        Height and width, in pixels, with these settings; None means `image_size`.

    Attributes
    ----------
    stem : torch.nn.Sequential
        Layers before the first phase.
    phases : tuple of 4 torch.nn.Sequential
        Blocks of each phase.
    depths : tuple of 4 int
        Number of blocks in each phase that count: the first blocks of its rows, which change
        channels or stride and always stay, count together as one.
    planes : tuple of int
        Planes of each row.
    fc : torch.nn.Linear
        Pre-trained head.
    n_features : int
        Number of input features of the head.
    published : dict of str to str
        Names of layers in published state dicts, by their names here, where they differ.
    turned : bool
        Whether the stem turns images by 180 degrees, and published kernels have to be turned, too.

    See Also
    --------
    make_resnet : Backbone of basic blocks or bottlenecks.
    make_mobilenet : Backbone of inverted residual blocks.

    Examples
    --------
    >>> from torch import nn
    >>> from sklearn_rrr import Backbone
    >>> from sklearn_rrr.backbones.basic_block import BasicBlock
    >>> from sklearn_rrr.backbones.block import Row
    >>> stem = {"conv1": nn.Conv2d(3, 8, 3, 4, 1, bias=False), "bn1": nn.BatchNorm2d(8)}
    >>> rows = [[Row(BasicBlock, 8, 2)], *[[Row(BasicBlock, c, 1, 2)] for c in (8, 16, 32)]]
    >>> Backbone("small", stem, rows).depths
    (2, 1, 1, 1)
    """

    published = {}

    def __init__(
        self,
        name,
        stem,
        rows,
        *,
        image_size=128,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        n_classes=1000,
        fine_tuning=None,
        fine_tuning_whole=None,
        image_size_whole=None,
    ):
        super().__init__()
        self.name, self.rows = name, tuple(map(tuple, rows))
        if len(self.rows) != 4 or not all(self.rows):
            raise ValueError(
                "`rows` must be 4 non-empty sequences of Row, one for each of conv2_x to conv5_x; "
                f"got {len(self.rows)} of the lengths {[*map(len, self.rows)]}."
            )
        self.image_size, self.mean, self.std = image_size, tuple(mean), tuple(std)
        self.fine_tuning = FineTuning() if fine_tuning is None else fine_tuning
        self.fine_tuning_whole = fine_tuning_whole or self.fine_tuning
        self.image_size_whole = image_size_whole or image_size
        self._stem = tuple(stem)
        for key, module in stem.items():
            self.add_module(key, module)
        convs = [m for m in self.modules() if isinstance(m, nn.Conv2d)]
        self._stem_channels = convs[-1].out_channels
        for i in range(4):
            self.add_module(f"layer{i + 1}", self.make_phase(i))
        self.n_features = self.in_channels(4)
        self.fc = nn.Linear(self.n_features, n_classes)
        initialise(self)

    @property
    def stem(self):
        return nn.Sequential(*(getattr(self, key) for key in self._stem))

    @property
    def turned(self):
        return any(isinstance(layer, HalfTurn) for layer in self.stem)

    @property
    def phases(self):
        return (self.layer1, self.layer2, self.layer3, self.layer4)

    @property
    def depths(self):
        return tuple(1 + sum(row.depth - 1 for row in phase) for phase in self.rows)

    @property
    def planes(self):
        return tuple(row.planes for phase in self.rows for row in phase)

    def in_channels(self, phase):
        """Return the number of input channels of a phase (0 to 3) or of the head (4)."""
        return self.rows[phase - 1][-1].out_channels() if phase else self._stem_channels

    def select_blocks(self, phase, blocks):
        """Return the positions of the blocks of a phase that `blocks` keeps, in order.

        Parameters
        ----------
        phase : int
            0 to 3.
        blocks : int or sequence of int
            How many blocks to keep, counted as in `depths`, or their positions.
        """
        if not isinstance(blocks, Integral):
            return tuple(blocks)
        repeats = [index > 0 for row in self.rows[phase] for index in range(row.depth)]
        counts = [1 + sum(repeats[: i + 1]) for i in range(len(repeats))]
        kept = zip(repeats, counts, strict=True)
        return tuple(i for i, (repeats, n) in enumerate(kept) if not repeats or n <= blocks)

    def reduce_phase(self, phase, blocks):
        """Return a phase with the blocks that `blocks` keeps, under their names in the backbone."""
        kept = self.select_blocks(phase, blocks)
        return nn.Sequential(OrderedDict((str(i), self.phases[phase][i]) for i in kept))

    def make_phase(self, phase, in_channels=None, planes=None, inputs=None, blocks=None):
        """Build a phase of this architecture, with initial weights.

        Parameters
        ----------
        phase : int
            0 to 3.
        in_channels : int or None, default=None
            Number of input channels; None uses the backbone's.
        planes : sequence of int or None, default=None
            Planes of each row of the phase; None uses the backbone's.
        inputs : int or None, default=None
            Width of the preceding row in a branch, see :meth:`Row.make_block`.
        blocks : int, sequence of int or None, default=None
            Blocks to keep, as in :meth:`select_blocks`; None keeps all.
        """
        rows = self.rows[phase]
        planes = [row.planes for row in rows] if planes is None else planes
        channels = self.in_channels(phase) if in_channels is None else in_channels
        widths = [channels if inputs is None else inputs]
        widths += [row.out_channels(width) for row, width in zip(rows, planes, strict=True)]
        kept = None if blocks is None else self.select_blocks(phase, blocks)
        made, position = OrderedDict(), 0
        for row, width, (before, after) in zip(rows, planes, pairwise(widths), strict=True):
            for index in range(row.depth):
                if kept is None or position in kept:
                    source = after if index else before
                    made[str(position)] = row.make_block(index, channels, width, source)
                    channels = after
                position += 1
        return nn.Sequential(made)

    def forward(self, x):
        """Return the logits of the pre-trained head: (B, 3, H, W) -> (B, n_classes).

        `x` must be normalised with `mean` and `std`.
        """
        x = self.stem(x)
        for phase in self.phases:
            x = phase(x)
        return self.fc(x.mean((2, 3)))
