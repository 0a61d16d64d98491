"""The three stages of pre-training: draw images, train, export. Each resumes where it was.

What a step draws depends on the recipe's seed and the step alone, so that an interrupted
run ends in the same weights as one that was not.
"""

import logging
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.format import open_memmap
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, Subset

from pretraining.synthesis import SyntheticImages
from sklearn_rrr._files import write_atomically
from sklearn_rrr._surroundings import seeded
from sklearn_rrr.training.devices import use_bf16

LOG = logging.getLogger("pretraining")
DRAW_BATCH = 128
CHUNK = 2048  # images between two marks of progress
N_OUTPUTS = 128  # of the contrastive projection
EVERY = 250  # steps between two checkpoints


# ---------------------------------------------------------------------------------- draw


def draw_images(recipe, folder, fonts=None, n_workers=2):
    """Draw the recipe's images into folder/images.npy; return them, uint8 (n, 3, S, S).

    Image i is of class i modulo the number of classes.
    """
    file, progress = folder / "images.npy", folder / "images.done"
    dataset = SyntheticImages(recipe.classes, recipe.per_class, recipe.size, recipe.seed, fonts)
    shape = (len(dataset), 3, recipe.size, recipe.size)
    done = int(progress.read_text()) if progress.exists() else 0
    if done < len(dataset):
        images = open_memmap(file, "r+" if done else "w+", np.uint8, shape)
        start = time.perf_counter()
        loader = DataLoader(
            Subset(dataset, range(done, len(dataset))), batch_size=DRAW_BATCH, num_workers=n_workers
        )
        marked = done
        for batch, _ in loader:
            images[done : done + len(batch)] = batch.numpy()
            done += len(batch)
            if done - marked >= CHUNK or done == len(dataset):
                images.flush()
                write_atomically(progress, str(done).encode())
                LOG.info("drew %d of %d images, %.0f s", done, len(dataset), _since(start))
                marked = done
    images = np.load(file, mmap_mode="r")
    if images.shape != shape:
        raise ValueError(f"{file} holds {images.shape}, not {shape}; name another folder.")
    return images


def _since(start):
    return time.perf_counter() - start


# ---------------------------------------------------------------------------------- train


def choose(recipe, n_images, step):
    """Return the indices of the images of a step, (B,).

    For classes a permutation of all images an epoch; for pairs two images of each of B / 2
    classes, which are drawn anew.
    """
    if recipe.objective == "classes":
        per_epoch = max(1, n_images // recipe.batch_size)
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((recipe.seed, 1, epoch)).permutation(n_images)
        return np.sort(order[place * recipe.batch_size :][: recipe.batch_size])
    rng = np.random.default_rng((recipe.seed, 2, step))
    half, n_classes = recipe.batch_size // 2, recipe.n_classes
    labels = rng.choice(n_classes, half, replace=n_classes < half)
    return np.concatenate(
        [labels + n_classes * rng.integers(recipe.per_class, size=half) for _ in range(2)]
    )


def jitter(images, generator):
    """Crop, stretch and re-colour each image: uint8 (B, 3, S, S) -> float32, about [0, 1]."""
    n = len(images)
    u = torch.rand(n, 4, generator=generator)
    scale = 1.05 - 0.5 * u[:, 0] ** 2
    slack = (1 - scale).clamp(min=0.05)
    aspect = 0.85 + 0.3 * u[:, 1]
    maps = torch.zeros(n, 2, 3)
    maps[:, 0, 0], maps[:, 1, 1] = scale * aspect, scale / aspect
    maps[:, :, 2] = (2 * u[:, 2:] - 1) * slack[:, None]
    x = images.float().div_(255)
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    gain = 0.8 + 0.4 * torch.rand(n, 3, 1, 1, generator=generator)
    shift = 0.1 - 0.2 * torch.rand(n, 1, 1, 1, generator=generator)
    return x * gain + shift


def schedule(t):
    """Return the share of the learning rate at t in [0, 1]: up over .05, down by a cosine."""
    return t / 0.05 if t < 0.05 else (1 + math.cos(math.pi * (t - 0.05) / 0.95)) / 2


def place(recipe, step):
    """Return whether only first blocks run in a step, and how far their schedule is, (0, 1]."""
    joined = round(recipe.whole_from * recipe.steps)
    if step < joined:
        return True, (step + 1) / joined
    return False, (step + 1 - joined) / (recipe.steps - joined)


def extract_features(network, x, reduced):
    """Run stem and phases, or only their first blocks: (B, 3, S, S) -> (B, F)."""
    x = network.stem(x)
    for phase in network.phases:
        x = (phase[0] if reduced else phase)(x)
    return x.mean((2, 3))


def contrast(outputs, labels, temperature):
    """Supervised contrastive loss of (B, D) outputs (Khosla et al. 2020, Eq. (2))."""
    outputs = F.normalize(outputs, dim=1)
    itself = torch.eye(len(outputs), dtype=torch.bool, device=outputs.device)
    logits = (outputs @ outputs.T / temperature).masked_fill(itself, -torch.inf)
    positive = (labels[:, None] == labels) & ~itself
    log_p = logits.log_softmax(1).masked_fill(~positive, 0)
    return -(log_p.sum(1) / positive.sum(1).clamp(min=1)).mean()


class Pretraining:
    """The network, its optimiser and the step they are at.

    Parameters
    ----------
    recipe : Recipe
    images : array of shape (n, 3, S, S), uint8
    device : str or torch.device
    """

    def __init__(self, recipe, images, device="cpu"):
        self.recipe, self.images, self.device = recipe, images, torch.device(device)
        with seeded(recipe.seed, self.device):
            network = recipe.make_network()
            self.module = nn.ModuleDict({"network": network})
            if recipe.objective != "classes":
                width = network.n_features
                self.module["projection"] = nn.Sequential(
                    nn.Linear(width, width), nn.ReLU(), nn.Linear(width, N_OUTPUTS)
                )
        self.module.to(device, memory_format=torch.channels_last).train()
        kernels = [p for p in self.module.parameters() if p.ndim > 1]
        others = [p for p in self.module.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": kernels}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.step = 0
        self._mean, self._std = (
            torch.tensor(v, device=device).view(3, 1, 1) for v in (network.mean, network.std)
        )
        self._bf16 = use_bf16(recipe.precision, self.device)

    @property
    def network(self):
        return self.module["network"]

    def load(self, step):
        """Return the images of a step, as the network takes them, and their labels."""
        index = choose(self.recipe, len(self.images), step)
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        x = jitter(torch.from_numpy(np.asarray(self.images[index])), generator).to(self.device)
        x = ((x - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        return x, torch.from_numpy(index % self.recipe.n_classes).to(self.device)

    def run_step(self):
        """Train one step; return its loss and the share of correct classes."""
        recipe = self.recipe
        x, labels = self.load(self.step)
        reduced, t = place(recipe, self.step)
        for part in self._first_parts():
            part.requires_grad_(reduced).train(reduced)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * schedule(t)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            features = extract_features(self.network, x, reduced)
            logits = self.network.fc(features).float()
            outputs = self.module["projection"](features).float() if self._contrasts else None
        loss = self._loss(logits, outputs, labels)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.item(), (logits.argmax(1) == labels).float().mean().item()

    def _first_parts(self):
        """Return what the reduced network consists of, up to its pooled features."""
        return self.network.stem, *(phase[0] for phase in self.network.phases)

    @property
    def _contrasts(self):
        return self.recipe.objective != "classes"

    def _loss(self, logits, outputs, labels):
        recipe = self.recipe
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        if recipe.objective == "classes":
            return loss
        pairs = contrast(outputs, labels, recipe.temperature)
        return pairs + loss if recipe.objective == "both" else pairs

    def state_dict(self):
        return {
            "recipe": self.recipe.as_json(),
            "step": self.step,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state):
        if state["recipe"] != self.recipe.as_json():
            raise ValueError("The checkpoint is of another recipe; name another folder.")
        self.step = state["step"]
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])


def train(recipe, images, folder, device="cpu"):
    """Train to the recipe's last step, from the folder's checkpoint if it holds one."""
    run, checkpoint = Pretraining(recipe, images, device), folder / "checkpoint.pt"
    if checkpoint.exists():
        run.load_state_dict(torch.load(checkpoint, map_location=device, weights_only=True))
        LOG.info("going on from step %d", run.step)
    start, results = time.perf_counter(), []
    while run.step < recipe.steps:
        results.append(run.run_step())
        if run.step % EVERY == 0 or run.step == recipe.steps:
            loss, hits = np.mean(results, axis=0)
            LOG.info(
                "step %d of %d: loss %.4f, correct %.3f, %.0f s",
                *(run.step, recipe.steps, loss, hits, _since(start)),
            )
            results.clear()
            temporary = checkpoint.with_suffix(".part")
            torch.save(run.state_dict(), temporary)
            os.replace(temporary, checkpoint)
    return run.network.eval()


# --------------------------------------------------------------------------------- export


def export(network, path):
    """Write the network's weights in fp16 as safetensors; return the number of bytes."""
    state = {
        key: value.half().contiguous()
        for key, value in network.state_dict().items()
        if value.is_floating_point()
    }
    if any(not value.isfinite().all() for value in state.values()):
        raise ValueError("A weight does not fit into fp16.")
    save_file(state, path)
    path.chmod(0o644)
    return path.stat().st_size
