"""The pre-training of synth50: the recipe, its three stages, and the command."""

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from pretraining import __main__ as command
from pretraining import stages, trials
from pretraining.recipe import Recipe
from pretraining.transfer import read_training_halves
from sklearn_rrr import load_backbone
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.weights import BUNDLED, PRETRAINED

TINY = Recipe(
    classes={"leaves": 3, "spectra": 4},
    per_class=6,
    size=32,
    planes=(4, 4, 8, 8),
    steps=6,
    batch_size=8,
)


@pytest.fixture
def images(tmp_path):
    return stages.draw_images(TINY, tmp_path, n_workers=0)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def test_drawing_stops_and_goes_on(tmp_path, images, monkeypatch):
    monkeypatch.setattr(stages, "CHUNK", 10)
    monkeypatch.setattr(stages, "DRAW_BATCH", 7)
    folder = tmp_path / "other"
    folder.mkdir()

    write = stages.write_atomically

    def write_and_die(path, content):
        write(path, content)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "write_atomically", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            stages.draw_images(TINY, folder, n_workers=0)
    assert int((folder / "images.done").read_text()) == 14
    again = stages.draw_images(TINY, folder, n_workers=0)
    np.testing.assert_array_equal(again, images)


def test_every_image_is_seen_once_an_epoch():
    chosen = np.concatenate([stages.choose(TINY, 48, step) for step in range(6)])
    assert sorted(chosen) == list(range(48))
    later = np.concatenate([stages.choose(TINY, 48, step) for step in range(6, 12)])
    assert sorted(later) == list(range(48))
    assert later.tolist() != chosen.tolist()


def test_pairs_are_two_images_of_each_class():
    recipe = replace(TINY, objective="pairs")
    chosen = stages.choose(recipe, 42, 3)
    labels = chosen % recipe.n_classes
    assert len(chosen) == 8
    assert labels[:4].tolist() == labels[4:].tolist()
    assert len(set(labels)) == 4
    assert chosen.max() < 42


def test_jitter_keeps_the_shape_and_moves_images():
    numbers = torch.Generator().manual_seed(0)
    x = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=numbers)
    jittered = stages.jitter(x, torch.Generator().manual_seed(0))
    assert jittered.shape == x.shape
    assert jittered.dtype == torch.float32
    assert jittered.min() > -0.5
    assert jittered.max() < 1.5
    again = stages.jitter(x, torch.Generator().manual_seed(0))
    assert torch.equal(jittered, again)
    assert not torch.equal(jittered, stages.jitter(x, torch.Generator().manual_seed(1)))


def test_schedule_rises_and_falls():
    shares = [stages.schedule(t / 100) for t in range(101)]
    assert shares[0] == 0
    assert max(shares) == shares[5] == 1
    assert shares[-1] == pytest.approx(0, abs=1e-12)
    assert stages.schedule(0.525) == pytest.approx(0.5)


def test_contrast_against_a_loop():
    outputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0, 1, 2, 0])
    z = F.normalize(outputs, dim=1)
    losses = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        total = sum(torch.exp(z[i] @ z[j] / 0.1) for j in others)
        positive = [j for j in others if labels[j] == labels[i]]
        terms = [-torch.log(torch.exp(z[i] @ z[p] / 0.1) / total) for p in positive]
        losses.append(sum(terms) / max(len(positive), 1))
    expected = torch.tensor(losses).mean()
    torch.testing.assert_close(stages.contrast(outputs, labels, 0.1), expected)


def test_reduced_features_are_those_of_first_blocks():
    network = make_backbone("synth50").eval()
    x = torch.rand(2, 3, 64, 64)
    whole = stages.extract_features(network, x, reduced=False)
    torch.testing.assert_close(network.fc(whole), network(x))
    reduced = stages.extract_features(network, x, reduced=True)
    for phase in network.phases:
        for block in phase[1:]:
            nn.init.zeros_(block.conv1.weight)
            nn.init.zeros_(block.bn3.weight)
    torch.testing.assert_close(stages.extract_features(network, x, reduced=False), reduced)


@pytest.mark.parametrize("objective", ["classes", "pairs", "both"])
def test_training_repeats_and_resumes_to_the_same_weights(tmp_path, images, objective, monkeypatch):
    recipe = replace(TINY, objective=objective)
    weights = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        weights.append(stages.train(recipe, images, tmp_path / name).state_dict())
    assert same(*weights)

    monkeypatch.setattr(stages, "EVERY", 2)
    run_step = stages.Pretraining.run_step

    def stop_at_step_3(run):
        if run.step == 3:
            raise KeyboardInterrupt
        return run_step(run)

    (tmp_path / "third").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(stages.Pretraining, "run_step", stop_at_step_3)
        with pytest.raises(KeyboardInterrupt):
            stages.train(recipe, images, tmp_path / "third")
    state = torch.load(tmp_path / "third" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    resumed = stages.train(recipe, images, tmp_path / "third")
    assert same(resumed.state_dict(), weights[0])


def test_each_of_the_two_networks_has_a_schedule_of_its_own():
    recipe = replace(TINY, steps=400, whole_from=0.75)
    reduced, t = zip(*(stages.place(recipe, step) for step in range(400)), strict=True)
    assert all(reduced[:300])
    assert not any(reduced[300:])
    np.testing.assert_allclose(t[:300], np.arange(1, 301) / 300)
    np.testing.assert_allclose(t[300:], np.arange(1, 101) / 100)
    assert all(stages.place(replace(recipe, whole_from=1.0), step)[0] for step in range(400))


def test_later_blocks_start_as_identities_and_learn_alone(images):
    recipe = replace(TINY, whole_from=0.5)
    run = stages.Pretraining(recipe, images)
    x = torch.rand(2, 3, 32, 32)
    run.network.eval()
    features = [stages.extract_features(run.network, x, reduced) for reduced in (True, False)]
    torch.testing.assert_close(*features)

    run.network.train()
    for _ in range(3):
        run.run_step()
    half = {key: value.clone() for key, value in run.network.state_dict().items()}
    assert int(half["layer1.0.bn1.num_batches_tracked"]) == 3
    assert int(half["layer1.1.bn1.num_batches_tracked"]) == 0
    for _ in range(3):
        run.run_step()
    moved = {key for key, value in run.network.state_dict().items() if (value != half[key]).any()}
    kept = {key for key in half if ".0." in key or key.startswith(("conv1.", "bn1."))}
    assert not moved & kept
    assert {key for key in half if ".conv" in key} - kept <= moved


@pytest.mark.slow
def test_training_learns(images):
    recipe = replace(TINY, steps=300, learning_rate=0.01, whole_from=1.0)
    run = stages.Pretraining(recipe, images)
    losses = [run.run_step()[0] for _ in range(recipe.steps)]
    assert np.mean(losses[-12:]) < np.mean(losses[:12]) - 0.3


def test_checkpoint_of_another_recipe_is_refused(tmp_path, images):
    stages.train(TINY, images, tmp_path)
    with pytest.raises(ValueError, match="checkpoint is of another recipe"):
        stages.train(replace(TINY, steps=7), images, tmp_path)


def test_export_refuses_what_fp16_cannot_hold(tmp_path):
    network = TINY.make_network()
    with torch.no_grad():
        network.bn1.running_var[0] = 1e6
    with pytest.raises(ValueError, match="does not fit into fp16"):
        stages.export(network, tmp_path / "x.safetensors")


def test_shortened_draws_no_more_than_it_uses():
    recipe = Recipe().shortened(50)
    assert recipe.steps == 50
    n_images = recipe.per_class * recipe.n_classes
    assert 50 * recipe.batch_size <= n_images < 50 * recipe.batch_size + recipe.n_classes
    assert Recipe().shortened(10**6).per_class == Recipe().per_class


def test_recipe_fits_the_wheel():
    network = Recipe().make_network()
    assert sum(p.numel() for p in network.parameters()) * 2 < 12e6
    assert network.planes == make_backbone("synth50").planes


def test_bundled_file_is_of_the_recipe():
    state = load_file(PRETRAINED / BUNDLED["synth50"][0])
    assert len(state["fc.bias"]) == Recipe().n_classes
    assert {value.dtype for value in state.values()} == {torch.float16}


@pytest.mark.slow
def test_command_makes_weights_that_load(tmp_path):
    """The whole chain, as ``make pretrain-synth50 STEPS=50`` runs it."""
    command.main(["--steps", "50", "--folder", str(tmp_path)])
    path = tmp_path / "synth50.safetensors"
    backbone, pretrained = load_backbone("synth50", path)
    assert pretrained
    assert backbone.fc.out_features == Recipe().n_classes
    log = (tmp_path / "log").read_text()
    assert "step 50 of 50" in log
    assert hashlib.sha256(path.read_bytes()).hexdigest() in log


def test_command_refuses_a_folder_of_other_work(tmp_path):
    command.claim(tmp_path, TINY, "0f")
    command.claim(tmp_path, TINY, "0f")
    for recipe, fonts in ((replace(TINY, seed=1), "0f"), (TINY, "1f")):
        with pytest.raises(SystemExit, match="of another recipe or other fonts"):
            command.claim(tmp_path, recipe, fonts)


def make_sets(folder):
    """Write two data sets of 2 classes: dark and bright pictures."""
    rng = np.random.default_rng(0)
    for name in ("A", "B"):
        (folder / name / "images").mkdir(parents=True)
        rows = []
        for i in range(24):
            label, split = i % 2, ("train", "test")[i // 12]
            pixels = rng.integers(100 * label, 100 * label + 100, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / "images" / f"{i}.png")
            rows.append((f"{i}.png", f"class {label}", split))
        table = pd.DataFrame(rows, columns=["FILE_NAME", "CATEGORY", "SPLIT"])
        table.to_csv(folder / name / "labels.csv", index=False)
    return folder


def test_trials_are_judged_in_the_training_halves(tmp_path, monkeypatch):
    data = make_sets(tmp_path / "data")
    sets = read_training_halves(data, 32)
    assert {name: images.shape for name, (images, _) in sets.items()} == {
        "A": (12, 32, 32, 3),
        "B": (12, 32, 32, 3),
    }
    for file in data.glob("*/images/*.png"):
        if int(file.stem) >= 12:
            file.unlink()  # the test halves are not read
    longer = replace(TINY, steps=60)
    monkeypatch.setattr(
        trials, "TRIALS", {"tiny": longer, "whole": replace(longer, whole_from=0.5)}
    )
    options = ["--data", str(data), "--folder", str(tmp_path), "--results", str(tmp_path / "t.csv")]
    trials.main([*options, "--trials", "tiny"])
    trials.main(options)
    rows = pd.read_csv(tmp_path / "t.csv")
    assert rows.trial.tolist() == ["tiny", "tiny", "whole", "whole"]
    assert rows.network.tolist() == ["1_1_1_1", "3_4_6_3"] * 2
    assert (rows["mean"] > 0.7).all()  # chance is 0.5
    assert (rows[["A", "B"]] > 0.5).all(axis=None)
    monkeypatch.setattr(trials, "TRIALS", {"tiny": replace(TINY, seed=1)})
    with pytest.raises(SystemExit, match=r"'tiny' .* of another recipe"):
        trials.main(options)
