"""Refuse truncated files, even if the process lets Pillow fill what is missing with gray."""

from PIL import ImageFile

from sklearn_rrr._shared_blocks import fix_settings


def _fills_in():
    return ImageFile.LOAD_TRUNCATED_IMAGES


def _set_filling_in(value):
    ImageFile.LOAD_TRUNCATED_IMAGES = value


refusing_truncated = fix_settings((False, _fills_in, _set_filling_in)).entered
