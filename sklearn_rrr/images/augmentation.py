"""The paper's random transformations, applied to batches with separate parameters per image.

RRR-Net (arXiv:2310.01157), appendix C: two transformations are drawn uniformly with
replacement for every image and applied in sequence. Images are (B, 3, H, W) float32 in
[0, 1]. The four geometric transformations are affine maps of the plane and run together; so
do the three colour transformations, affine maps of the channels. Consecutive geometric
transformations are merged into one map, so that pixels are interpolated only once.

Published strengths: shear ±10°, translation ±10 %, RGB shift ±15/255. Our choices: rotation
±15°, scaling ±10 %, brightness and contrast ±20 %, and those noted in the functions below.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sklearn_rrr._surroundings import seeded

GEOMETRIC = ("rotation", "translation", "scaling", "shear")
COLOUR = ("brightness_contrast", "colour_shift", "inversion")
OTHERS = (
    "sharpening",
    "gaussian_noise",
    "motion_blur",
    "jpeg_compression",
    "posterisation",
    "equalisation",
    "solarisation",
)
TRANSFORMATIONS = GEOMETRIC + COLOUR + OTHERS


@dataclass(frozen=True)
class PaperAugmentation:
    """Apply two transformations, drawn with replacement, to every image of a batch.

    Parameters
    ----------
    n_draws : int, default=2
        Transformations per image.
    transformations : tuple of str, default=TRANSFORMATIONS
        Names to draw from.

    Examples
    --------
    >>> import torch
    >>> images = torch.rand(4, 3, 32, 32)
    >>> PaperAugmentation()(images, torch.Generator().manual_seed(0)).shape
    torch.Size([4, 3, 32, 32])
    """

    n_draws: int = 2
    transformations: tuple = TRANSFORMATIONS

    def __call__(self, images, generator):
        """Transform (B, 3, H, W) in [0, 1]; the generator must be on the images' device."""
        draws = [
            [
                self.transformations[k]
                for k in _randint(len(self.transformations), images, generator)
            ]
            for _ in range(self.n_draws)
        ]
        return transform(images, draws, generator)


@dataclass(frozen=True)
class PerImage:
    """Apply a user's transformation of one image (3, H, W) to each image of a batch."""

    function: Callable

    def __call__(self, images, generator):
        seed = torch.randint(2**31, (), generator=generator, device=generator.device).item()
        with seeded(seed, images.device):  # the function may draw from the global generators
            return torch.stack([self._apply(image) for image in images])

    def _apply(self, image):
        result = self.function(image)
        is_float = isinstance(result, torch.Tensor) and result.is_floating_point()
        if not is_float or result.shape != image.shape:
            got = f"{type(result).__name__} of {getattr(result, 'dtype', 'no dtype')}"
            got += f" and shape {tuple(getattr(result, 'shape', ()))}"
            raise ValueError(
                "`augmentation` must return a float tensor with the shape of its input, "
                f"{tuple(image.shape)}; got {got}."
            )
        return result.to(image.dtype)


def transform(images, draws, generator):
    """Apply `draws` in sequence to images (B, 3, H, W).

    A draw is a list of B names, one transformation per image.
    """
    images = images.clone()
    maps = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    waiting = set()  # images whose map is not yet applied
    for names in draws:
        if due := [i for i in sorted(waiting) if names[i] not in GEOMETRIC]:
            images[due] = _warp(images[due], maps[due])
            maps[due] = torch.eye(3, device=images.device)
            waiting.difference_update(due)
        if rows := [i for i, name in enumerate(names) if name in GEOMETRIC]:
            maps[rows] = maps[rows] @ _geometric(maps[rows], [names[i] for i in rows], generator)
            waiting.update(rows)
        if rows := [i for i, name in enumerate(names) if name in COLOUR]:
            images[rows] = _colour(images[rows], [names[i] for i in rows], generator)
        for name in OTHERS:
            if rows := [i for i, drawn in enumerate(names) if drawn == name]:
                images[rows] = _FUNCTIONS[name](images[rows], generator)
    if len(waiting) == len(images):
        return _warp(images, maps)
    if due := sorted(waiting):
        images[due] = _warp(images[due], maps[due])
    return images


def _randint(high, x, generator):
    return torch.randint(high, (len(x),), generator=generator, device=generator.device).tolist()


def _uniform(x, low, high, generator, channels=1):
    """Draw one number per image and channel: (B, channels, 1, 1)."""
    shape = (len(x), channels, 1, 1)
    return torch.rand(shape, generator=generator, device=x.device) * (high - low) + low


def _rows(names, group, device):
    """Return one mask (B,) per transformation of a group: the images that drew it."""
    return [torch.tensor([name == one for name in names], device=device) for one in group]


def _geometric(x, names, generator):
    """Draw affine maps of the plane, (B, 3, 3), from output to input positions."""
    unit = _uniform(x, -1, 1, generator, channels=2)[..., 0, 0]  # (B, 2) in [-1, 1]
    maps = torch.eye(3, device=x.device).repeat(len(x), 1, 1)
    rotated, moved, scaled, sheared = _rows(names, GEOMETRIC, x.device)
    u, shear = unit[:, 0], torch.tan(unit * math.radians(10))
    cos, sin = torch.cos(u * math.radians(15)), torch.sin(u * math.radians(15))
    rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    maps[rotated, :2, :2] = rotation[rotated]
    maps[moved, :2, 2] = unit[moved] * 0.2  # the image spans 2 units
    maps[scaled, :2, :2] *= (1 + 0.1 * u[scaled])[:, None, None]
    maps[sheared, 0, 1], maps[sheared, 1, 0] = shear[sheared].T
    return maps


def _warp(x, maps):
    grid = F.affine_grid(maps[:, :2], list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False).clamp_(0, 1)


def _colour(x, names, generator):
    gain = torch.ones(len(x), 1, 1, 1, device=x.device)
    shift = torch.zeros(len(x), 3, 1, 1, device=x.device)
    contrast = _uniform(x, 0.8, 1.2, generator)
    brightness = _uniform(x, -0.2, 0.2, generator)
    colours = _uniform(x, -15 / 255, 15 / 255, generator, channels=3)
    brightened, shifted, inverted = _rows(names, COLOUR, x.device)
    gain[inverted], shift[inverted] = -1, 1
    shift[shifted] = colours[shifted]
    gain[brightened], shift[brightened] = contrast[brightened], brightness[brightened]
    return (x * gain + shift).clamp(0, 1)


def _sharpening(x, generator):
    """Unsharp masking with a 3 x 3 box blur, amount 0.2 to 1."""
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return (x + _uniform(x, 0.2, 1, generator) * (x - blurred)).clamp(0, 1)


def _gaussian_noise(x, generator):
    """Add noise with a standard deviation of 0.01 to 0.05."""
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    return (x + noise * _uniform(x, 0.01, 0.05, generator)).clamp(0, 1)


def _motion_blur(x, generator):
    """Blur along a line of 3 to 7 pixels in a random direction."""
    angle = _uniform(x, 0, math.pi, generator)[..., 0]
    radius = _uniform(x, 1, 3, generator)[..., 0]
    axis = torch.arange(-3.0, 4.0, device=x.device)
    row, column = torch.meshgrid(axis, axis, indexing="ij")
    along = column * angle.cos() + row * angle.sin()
    across = row * angle.cos() - column * angle.sin()
    kernel = (1 - across.abs()).clamp(min=0) * (radius + 0.5 - along.abs()).clamp(0, 1)
    kernel = kernel / kernel.sum((1, 2), keepdim=True)  # (B, 7, 7)
    padded = F.pad(x, (3, 3, 3, 3), mode="replicate").flatten(0, 1)[None]
    kernel = kernel.repeat_interleave(3, 0)[:, None]
    return F.conv2d(padded, kernel, groups=len(kernel)).view_as(x)


# ITU-T T.81, tables K.1 and K.2.
_LUMINANCE = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
_CHROMINANCE = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *([99] * 8 for _ in range(4)),
]
_TO_YCBCR = [
    [0.299, 0.587, 0.114],
    [-0.168736, -0.331264, 0.5],
    [0.5, -0.418688, -0.081312],
]


def _jpeg_compression(x, generator):
    """Simulate JPEG without chroma subsampling, quality 30 to 95."""
    quality = _uniform(x, 30, 95, generator)[..., None, None]  # (B, 1, 1, 1, 1, 1)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    tables = torch.tensor([_LUMINANCE, _CHROMINANCE, _CHROMINANCE], device=x.device)
    tables = (tables[None, :, None, None] * scale).round().clamp(1, 255)
    height, width = x.shape[2:]
    padded = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
    to_ycbcr = torch.tensor(_TO_YCBCR, device=x.device)
    planes = torch.einsum("dc,bchw->bdhw", to_ycbcr, padded) * 255
    planes[:, 0] -= 128
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    dct = _dct_matrix(x.device)
    coefficients = dct @ blocks @ dct.T  # (B, 3, H/8, W/8, 8, 8)
    blocks = dct.T @ ((coefficients / tables).round() * tables) @ dct
    planes = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    planes[:, 0] += 128
    rgb = torch.einsum("dc,bchw->bdhw", torch.linalg.inv(to_ycbcr), planes / 255)
    return rgb[..., :height, :width].clamp(0, 1)


def _dct_matrix(device):
    n = torch.arange(8, device=device)
    matrix = torch.cos((2 * n + 1) * n[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _posterisation(x, generator):
    """Reduce 8 bits to 4 to 6."""
    step = 2.0 ** (4 - _uniform(x, 0, 3, generator).floor())  # 16, 8 or 4 levels of 256
    return (x * 255 / step).floor() * step / 255


def _equalisation(x, generator):
    from torchvision.transforms.v2.functional import equalize  # imports torchvision: a second

    return equalize((x * 255).round().to(torch.uint8)).float() / 255


def _solarisation(x, generator):
    """Invert values at or above a threshold of 0.5 to 1."""
    return torch.where(x >= _uniform(x, 0.5, 1, generator), 1 - x, x)


_FUNCTIONS = {
    "sharpening": _sharpening,
    "gaussian_noise": _gaussian_noise,
    "motion_blur": _motion_blur,
    "jpeg_compression": _jpeg_compression,
    "posterisation": _posterisation,
    "equalisation": _equalisation,
    "solarisation": _solarisation,
}
