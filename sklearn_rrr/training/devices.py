"""What depends on the device in use: its arithmetic, its batches, its seeds, its memory."""

from contextlib import contextmanager

import torch
from torch import nn


def use_bf16(precision, device):
    """Tell whether training runs in bfloat16; None asks the hardware whether it multiplies it."""
    if precision is not None:
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def prediction_batch(device, image_bytes=0):
    """Return how many images are predicted at a time.

    An image's probabilities must not depend on its company, but on the CPU other kernels,
    which round differently, serve batches of one, odd ones and, with one thread, those of
    more than 12. So batches are even, and small with one thread; measured with torch 2.15.
    They are smaller, too, where a layer's output takes many `image_bytes` for each image:
    blocks of more than 32 MiB would be mapped anew each time.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return 8
    fitting = 2**24 // max(image_bytes, 1)
    return 64 if device.type != "cpu" else min(64, max(8, fitting // 2 * 2))


def training_layout(module, device):
    """Return the memory format to train `module` in: channels last, which is faster.

    On processors without AVX-512, however, oneDNN's kernel for the gradient of the weights of
    a strided 1×1 convolution writes beyond its memory where that convolution has fewer than 8
    input channels, a whole vector (seen with torch 2.14). In torch's own layout it does not.
    """
    narrow = any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels < 8
        for layer in module.modules()
    )
    return torch.contiguous_format if narrow and device.type == "cpu" else torch.channels_last


@contextmanager
def seeded(seed, device):
    """Seed torch's generators inside the block, and leave them as they were.

    They belong to the process: fits in several threads of one process do not repeat.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_generators(seed, device)
        yield


def seed_generators(seed, device):
    """Seed the CPU's generator and the device's; torch.manual_seed would seed every GPU's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def explained_memory(batch_size):
    """Turn torch's word for a full device into an error with a cure."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"The device ran out of memory with `batch_size`={batch_size}; use a smaller one, a "
            "smaller `image_size`, or device='cpu'."
        ) from error
