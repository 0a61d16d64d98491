"""One picture to RGB pixels: real files of every kind, whole and damaged."""

import io
import os
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from sklearn_rrr.images.decoding import BadImages, decode_file, decode_pil, is_animated, to_rgb
from sklearn_rrr.images.resizing import NumpyResizer

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8)
SAVED = {
    "baseline": {"format": "JPEG", "quality": 95},
    "progressive": {"format": "JPEG", "progressive": True},
    "png": {"format": "PNG"},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "tiff": {"format": "TIFF"},
    "tiff_lzw": {"format": "TIFF", "compression": "tiff_lzw"},
    "webp": {"format": "WEBP", "lossless": True},
    "ppm": {"format": "PPM"},
}


def encode(image, **options):
    """Return the bytes of a file of an array or PIL image."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, **options)
    return buffer.getvalue()


def decode(tmp_path, data, name="image.png", **options):
    path = tmp_path / name
    path.write_bytes(data)
    return decode_file(path, **options)[0]


def bomb(side):
    """Return a PNG file of 1-bit pixels that are all zero."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(side * (1 + (side + 7) // 8)), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("name", ["png", "bmp", "tiff", "tiff_lzw", "webp", "ppm"])
def test_lossless_formats(tmp_path, name):
    np.testing.assert_array_equal(decode(tmp_path, encode(NOISE, **SAVED[name])), NOISE)


def test_png_named_jpg(tmp_path):  # fault 27
    np.testing.assert_array_equal(decode(tmp_path, encode(NOISE, format="PNG"), "a.jpg"), NOISE)


# ------------------------------------------------------------------- files that are refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a directory or device; use load_image_folder"),
        (lambda path: path.symlink_to(path), r"cannot be read \(Too many levels"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (
            lambda path: path.write_text("<!DOCTYPE html><html>404</html>"),
            "is not an image of a known .*; convert it",
        ),
        (lambda path: path.write_text("label,path"), "is not an image of a known format"),
    ],
    ids=["missing", "directory", "link_loop", "zero_bytes", "html", "text"],
)
def test_no_image(tmp_path, make, message):  # faults 25 and 26
    path = tmp_path / "image.jpg"
    make(path)
    with pytest.raises(ValueError, match=f"image.jpg': {message}"):
        decode_file(path)


def test_no_permission(tmp_path):  # fault 25
    path = tmp_path / "image.png"
    path.write_bytes(encode(NOISE, format="PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(ValueError, match=r"image.png': no permission to read it"):
        decode_file(path)


@pytest.mark.parametrize("path", ["x" * 300, "a\0b.png", "/dev/null/x.png", "/dev/null", ""])
def test_impossible_path(path):  # fault 25
    with pytest.raises(
        ValueError, match=r"cannot be read|null byte|no such file|or device"
    ) as info:
        decode_file(path)
    assert str(info.value).startswith(f"{path!r}: ")


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", SAVED)
def test_truncated(tmp_path, name, part):  # fault 26
    data = encode(NOISE, **SAVED[name])
    with pytest.raises(ValueError, match=r"image.jpg': is (damaged \(|not an image)"):
        decode(tmp_path, data[: int(part * len(data))], "image.jpg")


@pytest.mark.parametrize("name", SAVED)
def test_random_damage_is_a_value_error(tmp_path, name):  # fault 26
    data, rng = encode(NOISE, **SAVED[name]), np.random.default_rng(1)
    refused = accepted = 0
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(len(data), size=6):
            damaged[place] = rng.integers(256)
        try:
            assert decode(tmp_path, damaged).shape[2] == 3
        except ValueError as error:
            refused += f"{tmp_path}/image.png': " in str(error)
        else:
            accepted += 1
    assert refused > 0
    assert refused + accepted == 40


FITS = b"SIMPLE  =                    T / file conforms to FITS standard".ljust(2880)


@pytest.mark.parametrize(
    "data",
    [*(encode(NOISE, format=name) for name in ("EPS", "PDF", "ICO", "TGA")), FITS],
    ids=["eps", "pdf", "ico", "tga", "fits"],
)
def test_format_allow_list(tmp_path, data):  # fault 28
    with pytest.raises(ValueError, match=r"image.jpg': is not an image of a known format"):
        decode(tmp_path, data, "image.jpg")


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize(("side", "n_bytes"), [(10_000, 13_000), (20_000, 50_000)])
def test_decompression_bomb(tmp_path, monkeypatch, side, n_bytes, action):  # fault 29
    def refuse(image):
        raise AssertionError("pixels are decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    data = bomb(side)
    assert len(data) < n_bytes
    with warnings.catch_warnings():
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        with pytest.raises(
            ValueError, match=rf"image.png': has {side**2} pixels.*max_image_pixels"
        ):
            decode(tmp_path, data)


def test_limit_of_pixels(tmp_path):  # fault 29
    data = encode(NOISE, format="PNG")
    assert decode(tmp_path, data, max_pixels=24 * 20).shape == NOISE.shape
    with pytest.raises(
        ValueError, match=r"has 480 pixels.*`max_image_pixels`=479.*Raise the limit"
    ):
        decode(tmp_path, data, max_pixels=24 * 20 - 1)


def test_bad_images_survives_pickling():  # workers of a grid search send it home
    error = pickle.loads(pickle.dumps(BadImages([(3, "a.png: is empty")], 9)))
    assert error.bad == [(3, "a.png: is empty")]
    assert str(error) == "1 of 9 image(s) cannot be used:\n  a.png: is empty"


# --------------------------------------------------------------- orientation, modes, frames

UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["png", "baseline"])
def test_exif_orientation(tmp_path, name, orientation):  # fault 30
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = decode(tmp_path, encode(NOISE, **SAVED[name]))
    turned = decode(tmp_path, encode(NOISE, exif=exif, **SAVED[name]))
    np.testing.assert_array_equal(turned, UPRIGHT[orientation](plain))


@pytest.mark.parametrize(("image_size", "scale"), [(None, 1), (41, 1), (40, 2), (20, 4), (8, 8)])
def test_large_jpeg_files_are_decoded_at_a_reduced_size(tmp_path, image_size, scale):
    path = tmp_path / "large.jpg"
    y, x = np.mgrid[:320, :400]
    waves = np.stack([127 + 60 * np.sin(x / 40), 127 + 60 * np.cos(y / 50), (x + y) / 3], -1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(waves.astype(np.uint8)).save(path, quality=95, exif=exif)
    whole, reduced = decode_file(path)[0], decode_file(path, image_size=image_size)[0]
    assert whole.shape == (400, 320, 3)
    assert reduced.shape == (400 // scale, 320 // scale, 3)
    if image_size is not None:
        resize = NumpyResizer(1).resize
        pair = [resize(pixels[None], image_size).astype(int) for pixels in (whole, reduced)]
        assert np.abs(pair[0] - pair[1]).max() <= 2
    with pytest.raises(ValueError, match="has 128000 pixels"):
        decode_file(path, max_pixels=127_999, image_size=image_size)


def test_cmyk_jpeg(tmp_path):  # fault 31
    orange = Image.new("RGB", (16, 16), (240, 140, 20))
    pixels = decode(tmp_path, encode(orange.convert("CMYK"), format="JPEG", quality=100))
    np.testing.assert_allclose(pixels[8, 8], (240, 140, 20), atol=4)


def palette(transparent=None, alpha=None):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putdata([0, 1])
    if transparent is not None:
        image.info["transparency"] = transparent
    return image.convert("PA") if alpha else image


RED, BLUE, WHITE = (200, 0, 0), (0, 0, 200), (255, 255, 255)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (palette(), [RED, BLUE]),
        (palette(transparent=0), [WHITE, BLUE]),
        (palette(transparent=b"\xff\x00"), [RED, WHITE]),
        (palette(alpha=True), [RED, BLUE]),
        (Image.new("1", (1, 1), 1), [WHITE]),
        (Image.new("L", (1, 1), 7), [(7, 7, 7)]),
        (Image.new("LA", (1, 1), (7, 0)), [WHITE]),
        (Image.new("LA", (1, 1), (100, 51)), [(224, 224, 224)]),
        (Image.new("La", (1, 1), (20, 51)), [(224, 224, 224)]),
        (Image.new("RGBA", (1, 1), (200, 0, 0, 0)), [WHITE]),
        (Image.new("RGBA", (1, 1), (200, 0, 0, 255)), [RED]),
        (Image.new("RGBa", (1, 1), (40, 0, 0, 51)), [(244, 204, 204)]),
        (Image.new("YCbCr", (1, 1), (90, 128, 128)), [(90, 90, 90)]),
        (Image.new("HSV", (1, 1), (0, 255, 200)), [RED]),
        (Image.new("CMYK", (1, 1), (0, 255, 255, 55)), [RED]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_modes(image, expected):  # fault 31
    pixels = decode_pil(image)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[0], expected)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_png_with_one_transparent_colour(tmp_path, mode):  # fault 31
    colour = (9, 9, 9) if mode == "RGB" else 0
    data = encode(Image.new(mode, (2, 2), colour), format="PNG", transparency=colour)
    assert (decode(tmp_path, data) == 255).all()


@pytest.mark.parametrize(
    ("values", "format", "scale"),
    [
        (np.uint16([[0, 40000, 65535]]), "PNG", 65535),
        (np.uint16([[0, 40000, 65535]]), "TIFF", 65535),
        (np.int32([[0, 40000, 65535]]), "TIFF", 65535),
        (np.float32([[0, 0.25, 1]]), "TIFF", 1),
        (np.float32([[0, 12, 14]]), "TIFF", 255),  # dark, not digits in [0, 16]
    ],
    ids=["png16", "tiff16", "tiff32", "tiff_float", "tiff_float255"],
)
def test_deep_gray(tmp_path, values, format, scale):  # fault 31
    pixels = decode(tmp_path, encode(values, format=format))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[..., 1], values / scale, rtol=1e-6)


def test_big_endian_16_bits():  # fault 31
    image = Image.frombytes("I;16B", (1, 1), b"\x80\x00")
    np.testing.assert_allclose(decode_pil(image), 0x8000 / 65535)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.float32([[-1, 2]]), "Negative values"),
        (np.float32([[0, 1000]]), r"range \[0, 1000\].*Divide"),
        (np.float32([[0, np.nan]]), "it contains NaN"),
        (np.int32([[0, 70000]]), r"16-bit pixels must lie in \[0, 65535\]"),
        (Image.new("LAB", (2, 2)), "mode 'LAB' cannot be converted to RGB"),
    ],
)
def test_doubtful_modes(tmp_path, image, message):  # fault 31
    with pytest.raises(ValueError, match=f"image.tif': .*{message}"):
        decode(tmp_path, encode(image, format="TIFF"), "image.tif")


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame(tmp_path, format):  # fault 32
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if format == "WEBP" else {}
    path = tmp_path / "frames"
    frames[0].save(path, format=format, save_all=True, append_images=frames[1:], **options)
    pixels, animated = decode_file(path)
    assert animated
    np.testing.assert_array_equal(pixels[0, 0], RED)


def test_one_frame_or_a_telephones_preview(tmp_path):
    image = Image.fromarray(NOISE)
    image.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[image])
    image.save(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.jpg") as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)
    assert decode_file(tmp_path / "a.jpg")[1] is False
    assert decode_file(tmp_path / "a.gif")[1] is False
    assert is_animated(image) is False


@pytest.mark.parametrize(
    "name", ["a b.png", "Ünïcödé 図像 🖼.png", "x" * 251 + ".png", "-", "%s{0}"]
)
def test_names(tmp_path, name):  # fault 34
    np.testing.assert_array_equal(decode(tmp_path, encode(NOISE, format="PNG"), name), NOISE)


def test_alpha_in_floats():  # fault 9
    rgba = np.array([0.2, 0.4, 0.6, 0.5], dtype=np.float32)[None, None]
    np.testing.assert_allclose(to_rgb(rgba)[0, 0], [0.6, 0.7, 0.8], rtol=1e-6)
