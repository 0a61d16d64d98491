"""What depends on the device in use: its arithmetic, its batches, its seeds, its memory."""

from contextlib import contextmanager

import torch


def use_bf16(precision, device):
    """Tell whether training runs in bfloat16; "auto" asks for hardware that multiplies it."""
    if precision != "auto":
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
