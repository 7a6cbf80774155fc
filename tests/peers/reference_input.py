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


def joined(cells, start):
    """The cells of the mask that a way over its cells (up, down, left, right) joins to those of `start`."""
    found = start & cells
    while True:
        grown = found.copy()
        grown[1:] |= found[:-1]
        grown[:-1] |= found[1:]
        grown[:, 1:] |= found[:, :-1]
        grown[:, :-1] |= found[:, 1:]
        grown &= cells
        if (grown == found).all():
            return found
        found = grown


def head_square(hounsfield, crop):
    """Top, left and edge of the square around the head; none where there is no head."""
    rows, columns = hounsfield.shape
    longer = max(rows, columns)
    cell = -(-longer // 128)
    down, across = -(-rows // cell), -(-columns // cell)
    above, pixels = numpy.zeros((2, down * cell, across * cell), bool)
    above[:rows, :columns] = hounsfield > crop["threshold"]
    pixels[:rows, :columns] = True
    above, pixels = (counts.reshape(down, cell, across, cell).sum((1, 3)) for counts in (above, pixels))
    filled = 2 * above > pixels
    border = numpy.ones_like(filled)
    border[1:-1, 1:-1] = False
    filled = ~joined(~filled, border)
    for _ in range(2):
        beside = numpy.pad(filled, 1)
        filled = filled & beside[:-2, 1:-1] & beside[2:, 1:-1] & beside[1:-1, :-2] & beside[1:-1, 2:]
    largest, left_over = numpy.zeros_like(filled), filled.copy()
    while left_over.any():
        start = numpy.zeros_like(filled)
        start[tuple(numpy.argwhere(left_over)[0])] = True
        component = joined(left_over, start)
        left_over &= ~component
        if component.sum() > largest.sum():
            largest = component
    if not largest.any() or largest.sum() * 200 < largest.size:
        return None

    def bounds(cells, edge):
        places = numpy.flatnonzero(cells)
        return max(int(places[0]) - 2, 0) * cell, min((int(places[-1]) + 3) * cell, edge)

    (top, bottom), (left, right) = bounds(largest.any(1), rows), bounds(largest.any(0), columns)
    head = max(bottom - top, right - left)
    side = max(int(head * (1 + 2 * crop["margin"]) + 0.5), int(crop["smallest"] * longer + 0.5))
    side = min(max(side, 1), longer)
    return (top + bottom - side) // 2, (left + right - side) // 2, side


def cropped(hounsfield, crop, air):
    """The square around the head, with air where it reaches beyond the image."""
    square = head_square(hounsfield, crop)
    if square is None:
        return hounsfield
    top, left, side = square
    padded = numpy.pad(hounsfield, side, constant_values=float(air))
    return padded[top + side : top + 2 * side, left + side : left + 2 * side]


def upright(image, one):
    """Turned by quarters and mirrored so that the patient's back is below and the left on the right, as Image Orientation says; only of a
    plane within 45 degrees of the axial one."""
    if not (cosines := one.get("ImageOrientationPatient")):
        return image
    row, column = numpy.array(cosines, float).reshape(2, 3)
    normal = numpy.cross(row, column)
    length = numpy.linalg.norm(normal)
    if not 0.5 <= length < 2 or abs(normal[2]) < 0.707 * length:
        return image
    if abs(row[0]) + abs(column[1]) < abs(row[1]) + abs(column[0]):
        image, row, column = image.T, column, row
    if row[0] < 0:
        image = image[:, ::-1]
    if column[1] < 0:
        image = image[::-1]
    return image


def tensor(card, file):
    """The model's input, made by other people's software from the same object."""
    one = pydicom.dcmread(file)
    stored = upright(one.pixel_array.astype(numpy.float64), one)
    transform = card["transform"]
    size = (transform["height"], transform["width"])
    if transform["name"] == "stored_values":
        if stored.shape != size:
            raise ValueError("the objects do not have the model's size, and this reference does not resample stored values")
        channels = [stored]
    else:
        hounsfield = stored * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0))
        if "PixelPaddingValue" in one:
            padding = stored == one.PixelPaddingValue
            border = numpy.ones_like(padding)
            border[1:-1, 1:-1] = False
            hounsfield[padding & ((hounsfield < -200) | joined(padding, border))] = -1024
        if crop := transform.get("crop_to_head"):
            hounsfield = cropped(hounsfield, crop, air=-1024)
        hounsfield = resampled(hounsfield, *size, air=-1024)
        channels = [
            numpy.clip((hounsfield - (w["center"] - w["width"] / 2)) / w["width"], 0, 1) for w in transform["windows"]
        ]
        if normalization := transform.get("normalization"):
            channels = [(c - normalization["mean"]) / normalization["deviation"] for c in channels]
    return numpy.stack(channels)[None].astype(numpy.float32)
