"""Good pictures in strange files, and bad files that would exhaust memory."""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from sklearn_rrr.images.decoding import BadImages, decode_file, decode_pil
from sklearn_rrr.images.forms import sort_input
from sklearn_rrr.images.sources import make_source

PIXELS = np.arange(6 * 7 * 3, dtype=np.uint8).reshape(6, 7, 3)
PNG = b"\x89PNG\r\n\x1a\n"


def chunk(kind, content, length=None):
    size = struct.pack(">I", len(content) if length is None else length)
    return size + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(path, *chunks):
    """Write PIXELS as a PNG file with chunks behind its header."""
    Image.fromarray(PIXELS).save(path, format="PNG")
    content = path.read_bytes()
    path.write_bytes(content[:33] + b"".join(chunks) + content[33:])
    return path


@pytest.mark.parametrize(
    "exif",
    [
        b"no tiff header",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40,
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x01\0\0\0\0\0\0\0\0",  # orientation as text
        b"",
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
def test_a_broken_exif_block_has_no_orientation(tmp_path, exif):  # fault 65
    path = png_with(tmp_path / "a.png", chunk(b"eXIf", exif))
    np.testing.assert_array_equal(decode_file(path)[0], PIXELS)
    with Image.open(path) as image:
        np.testing.assert_array_equal(decode_pil(image), PIXELS)
    Image.fromarray(PIXELS).save(tmp_path / "b.jpg", exif=b"Exif\0\0" + exif, quality=100)
    plain = tmp_path / "c.jpg"
    Image.fromarray(PIXELS).save(plain, quality=100)
    np.testing.assert_array_equal(decode_file(tmp_path / "b.jpg")[0], decode_file(plain)[0])


@pytest.mark.parametrize("kind", [b"tEXt", b"zzZz", b"IDAT", b"eXIf", b"iCCP"])
def test_a_chunk_longer_than_its_file_is_not_allocated(tmp_path, kind):  # fault 67
    path = png_with(tmp_path / "a.png", chunk(kind, b"", 0xFFFFFFFF))
    with pytest.raises(ValueError, match=r"a\.png': is damaged \(a chunk is longer than the file"):
        decode_file(path)


def test_memory_errors_of_pillow_name_the_file(tmp_path, monkeypatch):  # fault 67
    def exhaust(*_, **__):
        raise MemoryError

    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", exhaust)  # a file that does so fills the machine
    with pytest.raises(ValueError, match=r"a\.png': "):
        decode_file(tmp_path / "a.png")


def test_lazy_images_are_measured_before_they_are_decoded(tmp_path):  # faults 29 and 67
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        source = make_source(*sort_input([image]), max_pixels=59_999)
        with pytest.raises(BadImages, match="image 0: has 60000 pixels, more than `max_image"):
            source.load([0], 8)
        assert image.fp is not None  # nothing was read
        make_source(*sort_input([image]), max_pixels=60_000).load([0], 8)


def test_long_lists_are_capped(small, digits):  # fault 83
    fitted = small(max_epochs=1).fit(*digits)
    paths = [f"{i} .png" for i in range(3000)]
    with pytest.raises(BadImages, match="3000 of 3000") as info:
        fitted.predict(paths)
    message = str(info.value)
    assert len(message) < 3000
    assert "'19 .png': no such file\n  and 2980 more; `bad` of the error lists all" in message
    assert len(info.value.bad) == 3000


@pytest.mark.parametrize("format", ["jpeg", "png", "gif", "bmp", "tiff", "ppm", "webp"])
def test_truncated_files_are_refused_whatever_pillow_was_told(tmp_path, monkeypatch, format):
    """And fault 26: the process may let Pillow fill what is missing with gray."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = tmp_path / "a.img"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, format=format)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=r"a\.img': is damaged"):
        decode_file(path)
    if format != "webp":  # Pillow does not even open it
        with Image.open(path) as image:
            source = make_source(*sort_input([image]))
            with pytest.raises(BadImages, match=r"image 0: .*truncated"):
                source.load([0], 8)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_threads_that_decode_restore_the_setting_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:-900])

    def is_refused(name):
        try:
            decode_file(tmp_path / name)
        except ValueError:
            return True
        return False

    names = ["good.jpg", "bad.jpg"] * 100
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(is_refused, names)) == [name == "bad.jpg" for name in names]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
