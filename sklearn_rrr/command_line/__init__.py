"""Commands for folders of images: fit, predict, report."""
