"""Cut scikit-learn's two sample photographs into small ones: photos/temple/0.jpg and so on."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

BOXES = {  # photograph; left, upper, right, lower
    "temple": (0, 90, 90, 330, 340),
    "sky": (0, 330, 0, 640, 190),
    "tree": (0, 330, 300, 640, 427),
    "flower": (1, 190, 90, 430, 350),
    "leaf": (1, 0, 0, 160, 427),
}
SIZE = 36  # pixels; the cuttings do not overlap

for name, (photo, left, upper, right, lower) in BOXES.items():
    folder = Path("photos", name)
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(load_sample_images().images[photo])
    corners = [
        (x, y)
        for x in range(left, right - SIZE + 1, SIZE)
        for y in range(upper, lower - SIZE + 1, SIZE)
    ]
    for i, (x, y) in enumerate(corners):
        picture.crop((x, y, x + SIZE, y + SIZE)).save(folder / f"{i}.jpg")
