"""Grouped convolutions that compute each of their three products the fastest way.

In training, a convolution computes three products: its output and the gradients of its
input and weight. In bfloat16 on the CPU, torch's grouped kernels compute some of them
several times slower than batched matrix products; :func:`choose` selects these. It applies
a fixed rule from the measurements of ``make bench-speed``. Timing at run time could
choose differently in each run, and so change the rounding of a seeded fit.

B is the batch, G the number of groups; images are (B, G·C, h, w), channels last in memory.
"""

import torch
import torch.nn.functional as F

PRODUCTS = ("forward", "input", "weight")
FEW_ROWS = 1024  # output positions in a batch


def choose(rows, channels, kernel, stride, groups):
    """Return the members of PRODUCTS to compute as matrix products.

    Parameters
    ----------
    rows : int
        Output positions, B·h·w.
    channels : int
        Input channels per group, C.
    kernel, stride, groups : int
        Kernel size, stride and number of groups.
    """
    if kernel == 1 and stride > 1:
        return PRODUCTS if groups > 1 else ("forward",)
    if kernel == 1:
        return ("weight",) if groups > 1 and channels >= 96 else ()
    if channels < 48:
        return ()
    if rows <= FEW_ROWS:
        return ("input", "weight")
    return ("weight",) if groups == 1 else ()


class MatrixConv2d(torch.autograd.Function):
    """Convolution without bias or dilation, with equal stride and padding on both axes.

    ``apply(x, weight, stride, padding, groups, products)`` takes x (B, G·C, h, w) and weight
    (G·K, C, k, k), and computes `products` as matrix products.
    """

    @staticmethod
    def forward(ctx, x, weight, stride, padding, groups, products):
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, groups
        ctx.products = products
        if "forward" not in products:
            return F.conv2d(x, weight, None, stride, padding, 1, groups)
        patches, size = _patches(x, weight.shape[2], stride, padding, groups)
        kernels = _taps(weight, groups).flatten(2)  # (G, K, k·k·C)
        return _as_images(patches @ kernels.transpose(1, 2), len(x), size)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        wanted = dict(zip(("input", "weight"), ctx.needs_input_grad[:2], strict=True))
        left = [wanted[name] and name not in ctx.products for name in wanted]
        for_input, for_weight, _ = _convolution_backward(gradient, x, weight, *ctx.geometry, left)
        if wanted["input"] and not left[0]:
            for_input = _input_gradient(gradient, x, weight, *ctx.geometry)
        if wanted["weight"] and not left[1]:
            for_weight = _weight_gradient(gradient, x, weight, *ctx.geometry)
        return for_input, for_weight, None, None, None, None


def _convolution_backward(gradient, x, weight, stride, padding, groups, wanted):
    if not any(wanted):
        return None, None, None
    geometry = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups)
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *geometry, [*wanted, False]
    )


def _input_gradient(gradient, x, weight, stride, padding, groups):
    """Gather the outputs reached by the input positions of each residue modulo the stride."""
    kernel, taps = weight.shape[2], _taps(weight, groups)
    height, width = x.shape[2:]
    result = x.new_zeros(len(x), height, width, x.shape[1])
    around = F.pad(gradient, [kernel] * 4).permute(0, 2, 3, 1).unflatten(3, (groups, -1))
    for top in range(stride):
        rows = _sources(top, kernel, stride, padding)
        for left in range(stride):
            columns = _sources(left, kernel, stride, padding)
            size = -(-(height - top) // stride), -(-(width - left) // stride)
            if not rows or not columns or 0 in size:
                continue
            pairs = [(row, column) for row in rows for column in columns]
            parts = [
                around[:, r + kernel : r + kernel + size[0], c + kernel : c + kernel + size[1]]
                for (_, r), (_, c) in pairs
            ]
            outputs = torch.stack(parts, 4).flatten(4).flatten(0, 2).transpose(0, 1)
            kernels = torch.stack([taps[:, :, i * kernel + j] for (i, _), (j, _) in pairs], 1)
            images = _as_images(outputs @ kernels.flatten(1, 2), len(x), size)
            result[:, top::stride, left::stride] = images.permute(0, 2, 3, 1)
    return result.permute(0, 3, 1, 2)


def _sources(residue, kernel, stride, padding):
    """Return (tap, shift): input stride·j + residue reaches output j + shift through the tap."""
    ends = [(tap, residue + padding - tap) for tap in range(kernel)]
    return [(tap, end // stride) for tap, end in ends if end % stride == 0]


def _weight_gradient(gradient, x, weight, stride, padding, groups):
    kernel = weight.shape[2]
    patches, _ = _patches(x, kernel, stride, padding, groups)
    rows = gradient.permute(0, 2, 3, 1).unflatten(3, (groups, -1)).flatten(0, 2)
    products = rows.permute(1, 2, 0) @ patches  # (G, K, k·k·C)
    taps = products.unflatten(2, (kernel, kernel, -1))
    return taps.permute(0, 1, 4, 2, 3).flatten(0, 1)


def _patches(x, kernel, stride, padding, groups):
    """Return the input patch of each output, (G, B·h·w, k·k·C), and the output size (h, w)."""
    size = [(length + 2 * padding - kernel) // stride + 1 for length in x.shape[2:]]
    x = F.pad(x, [padding] * 4) if padding else x
    x = x.permute(0, 2, 3, 1).unflatten(3, (groups, -1))  # (B, h, w, G, C)
    (height, width), span = size, range(kernel)
    parts = [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in span
        for j in span
    ]
    patches = parts[0] if kernel == 1 else torch.stack(parts, 4).flatten(4)
    return patches.flatten(0, 2).transpose(0, 1), size


def _taps(weight, groups):
    """Rearrange a weight by taps: (G·K, C, k, k) -> (G, K, k·k, C)."""
    return weight.unflatten(0, (groups, -1)).flatten(3).transpose(2, 3)


def _as_images(products, n_images, size):
    """Rearrange products: (G, B·h·w, K) -> (B, G·K, h, w), channels last in memory."""
    rows = products.transpose(0, 1).reshape(n_images, *size, -1)
    return rows.permute(0, 3, 1, 2)
