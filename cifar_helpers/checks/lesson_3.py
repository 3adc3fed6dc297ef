"""The checks of lesson 3: what augmentation does to pictures, to labels, and to which of them.

Nothing is compared with a random draw. The pictures are made so that a result tells by itself what was done to it.
"""

import sys
from itertools import islice, product

import numpy as np

from cifar_helpers.checks.common import array, entry, expect, number_under, outcome, right

# Accuracies (3 seeds, 8 epochs), made up for exercise 6: no training has to come out like this.
_MEANS = {
    "plain": {"accuracy": [0.50, 0.64, 0.73, 0.79, 0.84, 0.88, 0.91, 0.93],
              "val_accuracy": [0.520, 0.600, 0.690, 0.720, 0.735, 0.738, 0.736, 0.733]},
    "augmented": {"accuracy": [0.45, 0.57, 0.65, 0.70, 0.73, 0.76, 0.78, 0.80],
                  "val_accuracy": [0.480, 0.605, 0.660, 0.700, 0.728, 0.745, 0.757, 0.768]},
}
TWO_NETS = {net: {key: np.add.outer([-0.009, 0.001, 0.008], means) for key, means in measures.items()}
            for net, measures in _MEANS.items()}


# --- exercise 1: predict ---


def check_views(predicted) -> None:
    """Check exercise 1: a dict of the numbers `views` and `validation views` and of `label`, ten shares."""
    views = number_under(predicted, "views", "predicted")
    known = {25: "that counts the places; each of them can be mirrored as well.",
             32: "moves reach from two pixels to one side to two pixels to the other: is the middle among your places?",
             27: "adding counts each change by itself; here they are combined.",
             12: "adding counts each change by itself; here they are combined.",
             10: "a picture moves along its rows and along its columns, one independent of the other.",
             4: "a move may be anything from none to two pixels, to either side, not only the largest."}
    expect(views == 50, f"views is not {views:g}: " + known.get(
        views, "count the places along the rows, those along the columns, and the sides, then combine them."))
    expect(number_under(predicted, "validation views", "predicted") == 1,
           "validation views: read in lesson 3 under 'Where does it belong?' which pictures are changed at all.")

    label = array(entry(predicted, "label", "predicted"), "predicted['label']", shape=(10,), kind="iuf")
    expect(np.isclose(label.sum(), 1), f"The shares in label add up to {label.sum():g}: what must ten shares add up "
                                       "to?")
    expect(set(np.flatnonzero(label)) <= {3, 5}, "label gives a share to a class of which nothing is in the picture.")
    cat, dog = label[3], label[5]
    expect(0 < dog < 1, "label holds one class alone, and the picture shows parts of two.")
    expect(not np.isclose(dog, 0.875), "label has the two shares the wrong way round: whose rectangle is pasted?")
    expect(dog not in (0.25, 0.5, 0.75, 0.375),
           "label goes by the length of a side; how many of the 1,024 pixels come from the other picture?")
    expect(np.isclose(dog, 0.125) and np.isclose(cat, 0.875),
           "label holds other shares than the pixels: how many of the 1,024 come from the other picture?")
    right("views multiply, validation pictures stay as they are, and a CutMix label goes by area.")


# --- exercise 2: move each picture by itself ---


def check_shift(shift) -> None:
    """Check exercise 2: `shift(images)` moves each image (n, 32, 32, 3) by its own -2 to 2 pixels along both axes."""
    images = np.random.default_rng(3).integers(0, 256, (128, 32, 32, 3), dtype=np.uint8)
    moves, again = _moves(shift, images), _moves(shift, images)
    expect(moves.any(), "No picture has moved.")
    expect(np.ptp(moves, axis=0).any(),
           "All pictures of the batch moved alike: each needs a move of its own, so how many must you draw?")
    for axis, (side, name) in enumerate((("up and down", "rows"), ("left and right", "columns"))):
        expect(moves[:, axis].any(), f"No picture moved {side}.")
        found = sorted(set(moves[:, axis].tolist()))
        expect(found == [-2, -1, 0, 1, 2], f"Among {len(images)} pictures the moves along the {name} were {found}, and "
                                           "must reach from -2 to 2: does the draw leave out one of its ends?")
    expect((moves[:, 0] != moves[:, 1]).any(), "Every picture moved as far along the rows as along the columns: the "
                                               "two need draws of their own.")
    expect((moves != again).any(), "A second call moved every picture as the first did: each epoch needs new moves, so "
                                   "no seed is set within the function.")
    plain = np.full((8, 32, 32, 3), 200, np.uint8)
    filled = array(outcome(shift, plain.copy(), name="shift"), "What shift returned", shape=plain.shape, kind="iuf")
    expect((filled == 200).all(), "A picture of one colour gets an edge of another: fill the freed edge from the "
                                  "picture's own edge.")
    right("each picture moves by itself, by up to two pixels, anew at each call.")


def _moves(shift, images) -> np.ndarray:
    """How far each picture was moved down and right, (n, 2); raises NotYet where one is no moved original."""
    given = images.copy()
    moved = array(outcome(shift, given, name="shift"), "What shift returned", shape=images.shape, kind="iuf")
    expect(np.array_equal(given, images), "shift changed the pictures that it was given: they are needed as they are "
                                          "in the next epoch, so make a new array.")
    moves = np.full((len(images), 2), 99)
    for down, across in product(range(-2, 3), repeat=2):
        part = images[:, 2 - down:30 - down, 2 - across:30 - across]
        moves[(moved[:, 2:30, 2:30] == part).all((1, 2, 3))] = down, across
    lost = np.flatnonzero(moves[:, 0] == 99)
    expect(not len(lost), _not_moved(images, moved, lost[0]) if len(lost) else "")
    far = np.flatnonzero(moves.all(axis=1))
    wrapped = [np.array_equal(moved[i], np.roll(images[i], moves[i], (0, 1))) for i in far]
    expect(not far.size or not all(wrapped), "What leaves a picture on one side comes back on the other: fill the "
                                             "freed edge from the picture's own edge instead.")
    return moves


def _not_moved(images, moved, i) -> str:
    inner = moved[i, 8:24, 8:24]
    for down, across in product(range(-8, 9), repeat=2):
        rows, columns = slice(8 - down, 24 - down), slice(8 - across, 24 - across)
        for pictures, what in (
                (images[i:i + 1], f"was moved by more than two pixels ({down} down, {across} to the right)."),
                (images[i:i + 1, :, ::-1], "is mirrored: shift moves pictures and does no more."),
                (images, "is another one of the batch: then it stands beside a label that is not its own.")):
            if (pictures[:, rows, columns] == inner).all((1, 2, 3)).any():
                return f"Picture {i} of the result {what}"
    if np.allclose(moved[i].max(), 1, atol=0.02):
        return f"Picture {i} of the result has values up to 1: shift leaves pixel values as they are."
    return (f"Picture {i} of the result is not its original moved by whole pixels: are the axes right, and are the "
            "pixels in between as they were?")


# --- exercise 3: MixUp ---


def check_mixup(mixup) -> None:
    """Check exercise 3: `mixup(images, labels, alpha)` blends each image and its one-hot label with another one's."""
    matrix, again = _mixed(mixup, 0.4), _mixed(mixup, 0.4)
    expect(not np.allclose(matrix, again), "A second call mixed every picture as the first did: each batch needs new "
                                           "draws, so no seed is set within the function.")
    strong = _mixed(mixup, 1_000.0)
    shares = strong.max(axis=1)[(strong > 1e-6).sum(axis=1) == 2]
    expect((shares < 0.65).all(), f"With alpha=1000 a picture has the share {shares.max():.2f}, and Beta(alpha, alpha) "
                                  "is then narrow around one half: does the draw depend on alpha?")
    right("pictures and labels are mixed in the same shares, drawn for each picture.")


def _mixed(mixup, alpha) -> np.ndarray:
    """The share (n, n) of each picture in each result; raises NotYet where labels do not agree with it.

    In picture i, pixel i alone is white: a blend shows what it is made of.
    """
    n = 64
    images = np.zeros((n, 1024, 3), np.float32)
    images[range(n), range(n)] = 255
    images, labels = images.reshape(n, 32, 32, 3), np.eye(10, dtype=np.float32)[np.arange(n) % 10]
    given = images.copy(), labels.copy()
    found = outcome(mixup, *given, alpha=alpha, name="mixup")
    expect(isinstance(found, tuple | list) and len(found) == 2, "mixup must return two things: images and labels.")
    blended = array(found[0], "The images from mixup", shape=images.shape, kind="f")
    mixed = array(found[1], "The labels from mixup", shape=labels.shape, kind="f")
    expect(np.array_equal(given[0], images) and np.array_equal(given[1], labels),
           "mixup changed the images or labels that it was given: make new arrays.")
    expect(np.isfinite(blended).all() and np.isfinite(mixed).all(), "mixup returned values that are no finite numbers.")

    pixels = blended.reshape(n, 1024, 3) / 255
    matrix = pixels[:, :n, 0]
    expect(np.allclose(pixels[:, :n], matrix[..., None], atol=1e-4) and not pixels[:, n:].any(),
           "The blended images hold pixels that are in neither of their two pictures, or not in all colours alike: "
           "does the share have the shape that it needs to be multiplied with images (n, 32, 32, 3)?")
    expect(np.allclose(matrix.sum(axis=1), 1, atol=1e-3), "The two shares in an image do not add up to one: blended "
                                                          "pictures become brighter or darker.")
    expect((matrix > -1e-6).all(), "An image has a share below zero.")
    parts = (matrix > 1e-6).sum(axis=1)
    expect((parts <= 2).all(), "An image is made of more than two pictures.")
    expect((parts == 2).any(), "No picture was mixed with another.")
    expect(np.ptp(matrix.max(axis=1)[parts == 2]) > 1e-4, "All pictures of the batch are mixed in the same share: each "
                                                          "needs a draw of its own.")
    _labels_agree(matrix, labels, mixed)
    return matrix


def _labels_agree(matrix, labels, mixed) -> None:
    expected = matrix @ labels
    if np.allclose(mixed, expected, atol=1e-3):
        return
    expect(not np.allclose(mixed, labels), "The labels are as they were: a picture that is half a cat needs a label "
                                           "that says so.")
    expect(np.allclose(mixed.sum(axis=1), 1, atol=1e-3), "The ten shares of a label do not add up to one.")
    expect(not np.isin(mixed, (0, 1)).all(), "Each label holds one class alone, and the pictures hold two: leave the "
                                             "shares as fractions.")
    blended = (matrix > 1e-6).sum(axis=1) == 2
    exchanged = np.where(matrix > 1e-6, 1 - matrix, 0) @ labels
    expect(not np.allclose(mixed[blended], exchanged[blended], atol=1e-3),
           "The labels have their two shares the wrong way round.")
    same_classes = ((mixed > 1e-6) == (expected > 1e-6)).all(axis=1).mean()
    expect(same_classes < 0.8, "A label is mixed in another share than its picture: one draw must serve both.")
    expect(False, "A label is mixed with that of another picture than the one in the image: one choice of partners "
                  "must serve both.")


# --- exercise 4: CutMix ---

# top, left, bottom, right: two inside, one over each edge or corner, one of no size, one larger than the picture
_BOXES = np.array([[4, 6, 14, 26], [20, 3, 28, 9], [-6, 10, 8, 20], [10, -4, 30, 6], [24, 22, 40, 44], [12, 12, 12, 20],
                   [-3, -3, 36, 35], [-8, 20, 5, 39]])


def check_cutmix(cutmix) -> None:
    """Check exercise 4: `cutmix(images, labels, boxes, partners)` pastes rectangles and mixes labels by area."""
    n = len(_BOXES)
    images = np.random.default_rng(4).integers(1, 255, (n, 32, 32, 3)).astype(np.float32)
    labels, partners = np.eye(10, dtype=np.float32)[:n], (np.arange(n) + 3) % n
    given = images.copy(), labels.copy(), _BOXES.copy(), partners.copy()
    found = outcome(cutmix, *given, name="cutmix")
    expect(isinstance(found, tuple | list) and len(found) == 2, "cutmix must return two things: images and labels.")
    pasted = array(found[0], "The images from cutmix", shape=images.shape, kind="f")
    mixed = array(found[1], "The labels from cutmix", shape=labels.shape, kind="f")

    inside = _inside(_BOXES)
    expected = np.where(inside, images[partners], images)
    wrong = (pasted != expected).any(axis=(1, 2, 3))
    over = ((_BOXES < 0) | (_BOXES > 32)).any(axis=1)
    if wrong.any():
        expect(not np.array_equal(pasted, images), "Nothing was pasted: from which picture do the pixels come?")
        expect(not np.array_equal(pasted, np.where(inside, images, images[partners])),
               "The rectangle is the picture's own and the rest is its partner's: it must be the other way round.")
        expect(not np.array_equal(pasted, np.where(_inside(_BOXES[:, [1, 0, 3, 2]]), images[partners], images)),
               "The rectangle has its rows and columns exchanged.")
        expect(not np.array_equal(pasted, _one_by_one(images, inside, partners)),
               "Some rectangles show a picture into which another had been pasted before: every partner must still be "
               "as it was given.")
        expect((wrong & ~over).any(), f"Only rectangles that reach over an edge go wrong, such as {_BOXES[wrong][0]}: "
                                      "what does a slice do with a negative index?")
        expect(False, f"In picture {np.flatnonzero(wrong)[0]} of the result not the right pixels are pasted.")
    expect(np.array_equal(given[0], images) and np.array_equal(given[1], labels),
           "cutmix changed the images or labels that it was given: make new arrays.")

    share = inside.mean(axis=(1, 2, 3))[:, None]
    wanted = (1 - share) * labels + share * labels[partners]
    wrong = ~np.isclose(mixed, wanted, atol=1e-4).all(axis=1)
    if wrong.any():
        expect(not np.array_equal(mixed, labels), "The labels are as they were, and the pictures show parts of two.")
        expect(not np.allclose(mixed, share * labels + (1 - share) * labels[partners], atol=1e-4),
               "The labels have their two shares the wrong way round.")
        expect(not np.isin(mixed, (0, 1)).all(), "Each label holds one class alone, and the pictures show parts of "
                                                 "two.")
        expect((wrong & ~over).any(), "The labels are wrong where a rectangle reaches over an edge: which of its "
                                      "pixels can be seen?")
        expect(np.allclose(mixed.sum(axis=1), 1, atol=1e-4), "The ten shares of a label do not add up to one.")
        expect(((mixed > 0) != (wanted > 0)).any(), "A label has other shares than its picture has pixels: count them.")
        expect(False, "A label names another class than the pictures that it is made of: whose label belongs to it?")
    right("the rectangle and the shares of the label are the same pixels.")


def _inside(boxes) -> np.ndarray:
    """Which pixels lie in each rectangle, bool (n, 32, 32, 1)."""
    top, left, bottom, right_edge = (edge[:, None, None] for edge in boxes.T)
    rows, columns = np.arange(32)[None, :, None], np.arange(32)[None, None, :]
    return ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right_edge))[..., None]


def _one_by_one(images, inside, partners) -> np.ndarray:
    pasted = images.copy()
    for i, partner in enumerate(partners):
        pasted[i] = np.where(inside[i], pasted[partner], pasted[i])
    return pasted


# --- exercise 5: two pipelines ---


def check_augmented_batches(pipelines) -> None:
    """Check exercise 5: `pipelines(train, validation, augment, batch_size)` gives batches, the training ones changed.

    Channel 0 of a picture holds its number, and `augment` leaves a random mark in channel 1.
    """
    train, validation = _numbered(120), _numbered(40)
    found = outcome(pipelines, train, validation, _mark, 16, name="pipelines")
    expect(isinstance(found, tuple | list) and len(found) == 2, "pipelines must return two things: the training "
                                                                "batches and the validation batches.")
    numbers, marks = _pass(found[0], "training", 120)
    again, new_marks = _pass(found[0], "training", 120)
    expect((marks > 0).all(), "Some training pictures were not augmented.")
    expect(not np.array_equal(marks[np.argsort(numbers)], new_marks[np.argsort(again)]),
           "The second epoch shows each training picture with the change it had in the first: what is kept between "
           "epochs, and what must be done anew?")
    expect((numbers != np.arange(120)).any(), "The training pictures come in the order in which they were given.")
    expect((np.diff(numbers) == 1).mean() < 0.7,
           "Each training batch holds neighbours: the batches are shuffled, and the pictures in them are not.")
    expect((numbers - np.arange(120)).max() > 30, "The training pictures are hardly shuffled: none comes much earlier "
                                                  "than it was given. From how many does shuffle draw?")
    expect((numbers != again).any(), "The second epoch has the training pictures in the order of the first.")
    for _ in range(2):
        numbers, marks = _pass(found[1], "validation", 40)
        expect((marks == 0).all(), "Validation pictures were augmented: we want to know how the net does on pictures "
                                   "as they are.")
    right("training pictures are shuffled and changed anew in each epoch, and validation pictures are left alone.")


def _numbered(count):
    """Images uint8 (count, 32, 32, 3) with their number in channel 0, and labels int64 that follow from it."""
    images = np.zeros((count, 32, 32, 3), np.uint8)
    images[..., 0] = np.arange(count)[:, None, None]
    return images, np.arange(count) * 7 % 10


def _mark(images):
    """Add a random mark, 1 to 2, to channel 1 of each picture, as float32: of an array, or of a tensor in a graph."""
    def draw(shape):
        return np.random.default_rng().uniform(1, 2, (*shape, 1, 1, 1)).astype(np.float32)

    channel = np.array([0, 1, 0], np.float32)
    if isinstance(images, np.ndarray):
        return images.astype(np.float32) + draw(images.shape[:-3]) * channel
    tf = sys.modules["tensorflow"]
    # not tf.random: where a seed is set, a data set's map draws the same again in each pass
    mark = tf.ensure_shape(tf.numpy_function(draw, [tf.shape(images)[:-3]], tf.float32),
                           [*images.shape[:-3], 1, 1, 1])
    return tf.cast(images, tf.float32) + mark * channel


def _pass(batches, name, count):
    """The numbers and marks of the pictures in one pass, each (count,); raises NotYet where labels do not fit."""
    try:
        seen = [(np.asarray(images), np.asarray(labels)) for images, labels in islice(batches, 10 * count)]
    except Exception as error:
        expect(False, f"The {name} batches cannot be read as pairs of images and labels: {type(error).__name__}, "
                      f"{str(error).splitlines()[0] if str(error) else ''}")
    expect(len(seen) < 10 * count, f"The {name} batches do not end: an epoch is one pass.")
    expect(len(seen), f"The {name} batches hold nothing, or nothing more after one pass: each epoch begins a new pass.")
    for images, labels in seen:
        expect(images.ndim == 4 and images.shape[1:] == (32, 32, 3) and labels.shape == images.shape[:1],
               f"A {name} batch has images of the shape {images.shape} and labels of the shape {labels.shape}, and "
               "must have (b, 32, 32, 3) and (b,).")
    largest = max(len(labels) for _, labels in seen)
    expect(largest == 16, f"A {name} batch holds {largest} pictures where 16 were asked for.")
    images, labels = (np.concatenate(part) for part in zip(*seen, strict=True))
    numbers, marks = images[:, 9, 9, 0], images[:, 9, 9, 1]
    expect(np.isin(numbers, np.arange(count)).all() and not images[..., 2].any() and (numbers % 1 == 0).all()
           and numbers.any(), f"The {name} pictures have other pixel values than before: augment changes them, and the "
                              "pipeline itself must not.")
    missing = count - len(np.unique(numbers))
    why = "what happens to the last batch?" if missing < 16 else "is it the right split, and all of it?"
    expect(not missing, f"{missing} of {count} {name} pictures never come: {why}")
    expect(len(numbers) == count, f"An epoch shows {len(numbers)} {name} pictures, and there are {count}.")
    expect(np.array_equal(labels, numbers.astype(int) * 7 % 10),
           f"The {name} labels are not those of the pictures beside them: what keeps the two together?")
    return numbers.astype(int), marks


# --- exercise 6: read a plot ---


def check_two_curves(reading) -> None:
    """Check exercise 6: what a dict says of TWO_NETS: two epochs, counted from 1, and two gaps in accuracy."""
    plain, augmented = (TWO_NETS[net]["val_accuracy"] for net in ("plain", "augmented"))
    ahead = _from_then_on(augmented.mean(axis=0) > plain.mean(axis=0))
    clear = _from_then_on(augmented.min(axis=0) > plain.max(axis=0))
    once = int(np.argmax(augmented.mean(axis=0) > plain.mean(axis=0))) + 1
    found = number_under(reading, "ahead from epoch", "reading")
    expect(found != once, "ahead from epoch: the augmented net falls behind again later; from where does it stay "
                          "ahead?")
    expect(found != ahead - 1, "ahead from epoch: one too early. Are you counting the epochs from 1, as the plot does?")
    expect(found != clear, "ahead from epoch: that is where the bands part; the means cross before.")
    expect(found == ahead, "ahead from epoch: compare the two solid lines, the means on validation images.")
    found = number_under(reading, "clear from epoch", "reading")
    expect(found != ahead, "clear from epoch: the lines have crossed there, and the bands still overlap.")
    expect(found == clear, "clear from epoch: look for where the lowest seed of one net is above the highest of the "
                           "other.")
    gaps = {key: float((TWO_NETS[net]["accuracy"] - TWO_NETS[net]["val_accuracy"])[:, -1].mean())
            for key, net in (("gap without", "plain"), ("gap with", "augmented"))}
    values = {key: number_under(reading, key, "reading") for key in gaps}
    expect(not all(np.isclose(values[key], gap, atol=0.01) for key, gap in zip(gaps, list(gaps.values())[::-1],
                                                                              strict=True)),
           "The two gaps are exchanged: which of the nets was trained with augmentation?")
    for key, gap in gaps.items():
        expect(values[key] >= 0, f"{key} is below zero: it is training minus validation accuracy.")
        expect(values[key] <= 1, f"{key} is above 1: give a difference of accuracies from 0 to 1, not per cent.")
        expect(np.isclose(values[key], gap, atol=0.015),
               f"{key}: take, at the last epoch, the distance between the dashed and the solid line of one net.")
    right("the lines cross first, the bands part later, and the gap is smaller with augmentation.")


def _from_then_on(true) -> int:
    """The epoch, counted from 1, from which on all are true."""
    return int(np.flatnonzero(~true)[-1]) + 2
