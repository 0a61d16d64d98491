"""Device-dependent precision, batch size, memory format and memory errors."""

from contextlib import contextmanager

import torch
from torch import nn


def use_bf16(precision, device, has_depthwise=False):
    """Tell whether training runs in bfloat16; None uses it if the hardware supports it.

    On the CPU, None trains networks with depthwise convolutions in float32: in bfloat16, these take
    twice as long (torch 2.14, AVX512-BF16).
    """
    if precision is not None:
        return precision == "bf16"
    if has_depthwise and device.type == "cpu":
        return False
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def prediction_batch(device, image_bytes=0, is_batch_invariant=False):
    """Return the batch size for prediction.

    Predictions must not depend on the composition of the batch. On the CPU, however, torch runs
    batches of one image, of an odd number and, with one thread, of more than 12 with other
    kernels, which round differently (measured with torch 2.15). Batches are therefore even, and
    small with one thread, unless the network `is_batch_invariant`. They are also smaller if a
    layer's output takes many `image_bytes` per image, to save memory.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1 and not is_batch_invariant:
        return 8
    fitting = 2**24 // max(image_bytes, 1)
    return 64 if device.type != "cpu" else min(64, max(8, fitting // 2 * 2))


def training_layout(module, device):
    """Return the memory format for training `module`: channels last, except where unsafe.

    Channels last is faster. On CPUs without AVX-512, however, oneDNN's kernel for the weight
    gradient of a strided 1×1 convolution writes out of bounds if the convolution has fewer
    than 8 input channels, a full vector (seen with torch 2.14). Contiguous tensors are safe.
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
def explained_memory(batch_size):
    """Turn errors of exhausted memory into a ValueError that suggests a cure."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_cpu = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        if not is_cpu and not isinstance(error, torch.OutOfMemoryError):
            raise
        cure = "" if is_cpu else " or device='cpu'"
        raise ValueError(
            f"The device ran out of memory with `batch_size`={batch_size}; use a smaller "
            f"`batch_size`, a smaller `image_size`{cure}."
        ) from error
