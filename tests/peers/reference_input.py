"""From a DICOM file to a model's input by other people's software: pydicom and numpy alone."""

import numpy
import pydicom


def resampled(image, height, width, air):
    """Padded to a square with air; then a triangle filter along each axis, which widens as the image shrinks."""
    if image.shape == (height, width):
        return image
    side = max(image.shape)
    top, left = ((side - length) // 2 for length in image.shape)
    square = numpy.full((side, side), float(air))
    square[top : top + image.shape[0], left : left + image.shape[1]] = image

    def weights(length):
        scale = side / length
        centers = (numpy.arange(length) + 0.5) * scale
        distances = numpy.abs(numpy.arange(side) + 0.5 - centers[:, None]) / max(scale, 1)
        triangle = numpy.clip(1 - distances, 0, None)
        return triangle / triangle.sum(axis=1, keepdims=True)

    return weights(height) @ square @ weights(width).T


def tensor(card, file):
    """The model's input, made by other people's software from the same object."""
    one = pydicom.dcmread(file)
    stored = one.pixel_array.astype(numpy.float64)
    transform = card["transform"]
    size = (transform["height"], transform["width"])
    if transform["name"] == "stored_values":
        if stored.shape != size:
            raise ValueError("the objects do not have the model's size, and this reference does not resample stored values")
        channels = [stored]
    else:
        hounsfield = stored * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0))
        if "PixelPaddingValue" in one:
            hounsfield[stored == one.PixelPaddingValue] = -1024
        hounsfield = resampled(hounsfield, *size, air=-1024)
        channels = [
            numpy.clip((hounsfield - (w["center"] - w["width"] / 2)) / w["width"], 0, 1) for w in transform["windows"]
        ]
        if normalization := transform.get("normalization"):
            channels = [(c - normalization["mean"]) / normalization["deviation"] for c in channels]
    return numpy.stack(channels)[None].astype(numpy.float32)
