"""Right and wrong solutions of lesson 3's exercises; a wrong one's name, or its line, says what is wrong with it."""

import numpy as np
import tensorflow as tf

from cifar_helpers.checks.lesson_3 import TWO_NETS

# --- exercise 1: views ---

LABEL = [0, 0, 0, 0.875, 0, 0.125, 0, 0, 0, 0]
VIEWS = {"views": 50, "validation views": 1, "label": LABEL}


def label_of(**shares):
    return {**VIEWS, "label": [shares.get(f"c{i}", 0) for i in range(10)]}


views = {
    "right": [VIEWS,
              {"views": np.int64(2 * 5 * 5), "validation views": 1.0, "label": np.array(LABEL)},
              {"views": tf.constant(50), "validation views": np.array(1), "label": tf.constant(LABEL)}],
    "wrong": [
        ({**VIEWS, "views": 25}, "each of them can be mirrored"),
        ({**VIEWS, "views": 32}, "is the middle among your places"),
        ({**VIEWS, "views": 27}, "here they are combined"),
        ({**VIEWS, "views": 10}, "along its rows and along its columns"),
        ({**VIEWS, "views": 100}, "views is not 100"),
        ({**VIEWS, "views": "fifty"}, "must be a number"),
        ({**VIEWS, "validation views": 50}, "which pictures are changed at all"),
        ({"views": 50, "label": LABEL}, "no entry 'validation views'"),
        (label_of(c3=0.125, c5=0.875), "the wrong way round"),
        (label_of(c3=0.75, c5=0.25), "by the length of a side"),
        (label_of(c3=0.5, c5=0.5), "by the length of a side"),
        (label_of(c3=1), "one class alone"),
        (label_of(c3=87.5, c5=12.5), "add up to 100"),
        (label_of(c3=0.6, c5=0.3, c0=0.1), "nothing is in the picture"),
        (label_of(c3=0.9, c5=0.1), "other shares than the pixels"),
        ({**VIEWS, "label": 3}, "must have (10,)"),
    ],
}

# --- exercise 2: shift ---


def shift_by_slices(images):
    generator = np.random.default_rng()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), "reflect")
    corners = generator.integers(0, 5, (len(images), 2))
    return np.stack([image[i:i + 32, j:j + 32] for image, (i, j) in zip(padded, corners, strict=True)])


def shift_by_indexing(images):
    padded = np.pad(np.asarray(images), ((0, 0), (2, 2), (2, 2), (0, 0)), "edge")
    down, across = np.random.default_rng().integers(0, 5, (2, len(images), 1))
    rows, columns = down + np.arange(32), across + np.arange(32)
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def shift_by_tensorflow(images):
    padded = tf.pad(tf.cast(images, tf.float32), ((0, 0), (2, 2), (2, 2), (0, 0)), "SYMMETRIC")
    return tf.map_fn(lambda image: tf.image.random_crop(image, (32, 32, 3)), padded)


def moved(images, moves, mode="reflect", reach=2):
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode)
    return np.stack([image[reach - i:reach - i + 32, reach - j:reach - j + 32]
                     for image, (i, j) in zip(padded, np.broadcast_to(moves, (len(images), 2)), strict=True)])


def draw(count, low=-2, high=3):
    return np.random.default_rng().integers(low, high, (count, 2))


def one_move_for_the_batch(images):
    return moved(images, [1, -2])


def same_moves_at_each_call(images):
    return moved(images, np.random.default_rng(0).integers(-2, 3, (len(images), 2)))


def no_move(images):
    return images


def columns_only(images):
    return moved(images, draw(len(images)) * [0, 1])


def upper_end_left_out(images):
    return moved(images, draw(len(images), -2, 2))


def one_draw_for_both_axes(images):
    return moved(images, draw(len(images))[:, :1])


def twice_as_far(images):
    return moved(images, 2 * draw(len(images)), reach=4)


def rolled(images):
    return moved(images, draw(len(images)), "wrap")


def black_edge(images):
    return moved(images, draw(len(images)), "constant")


def mirrored_too(images):
    return moved(images[:, :, ::-1], draw(len(images)))


def pictures_shuffled(images):
    return moved(np.random.default_rng().permutation(images), draw(len(images)))


def changed_in_place(images):
    images[:] = shift_by_slices(images)
    return images


def scaled_too(images):
    return shift_by_slices(images) / 255


def colours_rolled(images):
    return np.stack([np.roll(image, move, (1, 2)) for image, move in zip(images, draw(len(images)), strict=True)])


def cropped_only(images):
    return images[:, 2:-2, 2:-2]


def nothing_returned(images):
    moved(images, draw(len(images)))


shift = {
    "right": [shift_by_slices, shift_by_indexing, shift_by_tensorflow],
    "wrong": [
        (one_move_for_the_batch, "moved alike"), (same_moves_at_each_call, "A second call"),
        (no_move, "No picture has moved"), (columns_only, "No picture moved up and down"),
        (upper_end_left_out, "leave out one of its ends"), (one_draw_for_both_axes, "draws of their own"),
        (twice_as_far, "more than two pixels"), (rolled, "comes back on the other"), (mirrored_too, "is mirrored"),
        (black_edge, "an edge of another"),
        (pictures_shuffled, "another one of the batch"), (changed_in_place, "changed the pictures that it was given"),
        (scaled_too, "values up to 1"), (colours_rolled, "are the axes right"), (cropped_only, "shape"),
        (nothing_returned, "returned nothing"),
    ],
}

# --- exercise 3: mixup ---


def mixup_in_numpy(images, labels, alpha=0.4):
    generator = np.random.default_rng()
    share = generator.beta(alpha, alpha, len(images)).astype(np.float32)
    other = generator.permutation(len(images))
    wide = share[:, None, None, None]
    return (wide * images + (1 - wide) * images[other],
            share[:, None] * labels + (1 - share[:, None]) * labels[other])


def mixup_in_tensorflow(images, labels, alpha=0.4):
    first, second = tf.random.gamma((2, tf.shape(images)[0], 1, 1, 1), alpha)
    share, other = first / (first + second), tf.random.shuffle(tf.range(tf.shape(images)[0]))
    narrow = share[:, :, 0, 0]
    return (share * images + (1 - share) * tf.gather(images, other),
            narrow * labels + (1 - narrow) * tf.gather(labels, other))


def mixup_with_the_reversed_batch(images, labels, alpha=0.4):
    shares = np.random.default_rng().beta(alpha, alpha, len(images))
    pairs = zip(images, images[::-1], labels, labels[::-1], shares, strict=True)
    mixed = [(s * a + (1 - s) * b, s * c + (1 - s) * d) for a, b, c, d, s in pairs]
    return np.array([image for image, _ in mixed]), np.array([label for _, label in mixed])


def blend(values, share, other):
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values[other]


def draws(count, alpha=0.4):
    generator = np.random.default_rng()
    return generator.beta(alpha, alpha, count).astype(np.float32), generator.permutation(count)


def labels_not_mixed(images, labels, alpha=0.4):
    return blend(images, *draws(len(images), alpha)), labels


def labels_in_another_share(images, labels, alpha=0.4):
    share, other = draws(len(images), alpha)
    return blend(images, share, other), blend(labels, draws(len(images), alpha)[0], other)


def labels_of_another_partner(images, labels, alpha=0.4):
    share, other = draws(len(images), alpha)
    return blend(images, share, other), blend(labels, share, np.roll(other, 1))


def shares_exchanged(images, labels, alpha=0.4):
    share, other = draws(len(images), alpha)
    return blend(images, share, other), blend(labels, 1 - share, other)


def one_share_for_the_batch(images, labels, alpha=0.4):
    share, other = draws(len(images), alpha)
    return blend(images, share[:1], other), blend(labels, share[:1], other)


def labels_made_hard(images, labels, alpha=0.4):
    share, other = draws(len(images), alpha)
    return blend(images, share, other), np.eye(10, dtype=np.float32)[blend(labels, share, other).argmax(axis=1)]


def alpha_ignored(images, labels, alpha=0.4):
    return mixup_in_numpy(images, labels)


def same_draws_at_each_call(images, labels, alpha=0.4):
    generator = np.random.default_rng(1)
    share, other = generator.beta(alpha, alpha, len(images)).astype(np.float32), generator.permutation(len(images))
    return blend(images, share, other), blend(labels, share, other)


def pictures_added(images, labels, alpha=0.4):
    share, other = draws(len(images), alpha)
    return images + blend(images, share, other), labels + blend(labels, share, other)


def mixed_with_itself(images, labels, alpha=0.4):
    share, _ = draws(len(images), alpha)
    return blend(images, share, np.arange(len(images))), blend(labels, share, np.arange(len(images)))


def share_without_axes(images, labels, alpha=0.4):
    share, other = draws(len(images), alpha)
    return share * images + (1 - share) * images[other], labels


def a_share_a_pixel(images, labels, alpha=0.4):
    share, other = np.random.default_rng().beta(alpha, alpha, images.shape).astype(np.float32), draws(len(images))[1]
    return share * images + (1 - share) * images[other], labels


def mixed_in_place(images, labels, alpha=0.4):
    share, other = draws(len(images), alpha)
    images[:], labels[:] = blend(images, share, other), blend(labels, share, other)
    return images, labels


def images_alone(images, labels, alpha=0.4):
    return blend(images, *draws(len(images), alpha))


mixup = {
    "right": [mixup_in_numpy, mixup_in_tensorflow, mixup_with_the_reversed_batch],
    "wrong": [
        (labels_not_mixed, "labels are as they were"), (labels_in_another_share, "another share than its picture"),
        (labels_of_another_partner, "another picture than the one in the image"),
        (shares_exchanged, "the wrong way round"), (one_share_for_the_batch, "in the same share"),
        (labels_made_hard, "one class alone"), (alpha_ignored, "depend on alpha"),
        (same_draws_at_each_call, "A second call"), (pictures_added, "do not add up to one"),
        (mixed_with_itself, "No picture was mixed"), (share_without_axes, "stopped with ValueError"),
        (a_share_a_pixel, "not in all colours alike"), (mixed_in_place, "make new arrays"),
        (images_alone, "two things"),
    ],
}

# --- exercise 4: cutmix ---


def cutmix_by_slices(images, labels, boxes, partners):
    pasted, mixed = images.copy(), labels.copy()
    for i, (top, left, bottom, right) in enumerate(np.clip(boxes, 0, 32)):
        pasted[i, top:bottom, left:right] = images[partners[i], top:bottom, left:right]
        share = (bottom - top) * (right - left) / 1024
        mixed[i] = (1 - share) * labels[i] + share * labels[partners[i]]
    return pasted, mixed


def inside(boxes):
    top, left, bottom, right = np.asarray(boxes).T[..., None, None]
    rows, columns = np.arange(32)[:, None], np.arange(32)
    return ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))[..., None]


def cutmix_by_masks(images, labels, boxes, partners):
    mask = inside(boxes)
    share = mask.mean(axis=(1, 2))
    return np.where(mask, images[partners], images), (1 - share) * labels + share * labels[partners]


def cutmix_in_tensorflow(images, labels, boxes, partners):
    mask = tf.constant(inside(boxes))
    share = tf.reduce_mean(tf.cast(mask, tf.float32), (1, 2))
    return (tf.where(mask, tf.gather(images, partners), images),
            (1 - share) * labels + share * tf.gather(labels, partners))


def as_handed_out(images, labels, boxes, partners):
    mixed = labels.copy()
    for i, (top, left, bottom, right) in enumerate(boxes):
        top, left = max(top, 0), max(left, 0)
        images[i, top:bottom, left:right] = images[partners[i], top:bottom, left:right]
        share = (bottom - top) * (right - left) / 1024
        mixed[i] = (1 - share) * labels[i] + share * labels[partners[i]]
    return images, mixed


def area_over_the_edge(images, labels, boxes, partners):
    share = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 1024)[:, None]
    return np.where(inside(boxes), images[partners], images), (1 - share) * labels + share * labels[partners]


def negative_slices(images, labels, boxes, partners):
    pasted = images.copy()
    for i, (top, left, bottom, right) in enumerate(boxes):
        pasted[i, top:bottom, left:right] = images[partners[i], top:bottom, left:right]
    return pasted, cutmix_by_masks(images, labels, boxes, partners)[1]


def labels_as_they_were(images, labels, boxes, partners):
    return cutmix_by_masks(images, labels, boxes, partners)[0], labels


def label_shares_exchanged(images, labels, boxes, partners):
    share = inside(boxes).mean(axis=(1, 2))
    return np.where(inside(boxes), images[partners], images), share * labels + (1 - share) * labels[partners]


def inside_and_outside_exchanged(images, labels, boxes, partners):
    return np.where(inside(boxes), images, images[partners]), cutmix_by_masks(images, labels, boxes, partners)[1]


def rows_for_columns(images, labels, boxes, partners):
    return (cutmix_by_masks(images, labels, boxes[:, [1, 0, 3, 2]], partners)[0],
            cutmix_by_masks(images, labels, boxes, partners)[1])


def pasted_from_itself(images, labels, boxes, partners):
    return images.copy(), cutmix_by_masks(images, labels, boxes, partners)[1]


def pasted_in_place(images, labels, boxes, partners):
    images[:] = cutmix_by_masks(images, labels, boxes, partners)[0]
    return images, cutmix_by_masks(images, labels, boxes, partners)[1]


def share_of_the_side(images, labels, boxes, partners):
    share = np.sqrt(inside(boxes).mean(axis=(1, 2)))
    return np.where(inside(boxes), images[partners], images), (1 - share) * labels + share * labels[partners]


def label_of_the_larger_part(images, labels, boxes, partners):
    pasted, mixed = cutmix_by_masks(images, labels, boxes, partners)
    return pasted, np.eye(10, dtype=np.float32)[mixed.argmax(axis=1)]


def label_of_another(images, labels, boxes, partners):
    share = inside(boxes).mean(axis=(1, 2))
    return (np.where(inside(boxes), images[partners], images),
            (1 - share) * labels + share * labels[np.roll(partners, 1)])


def labels_added(images, labels, boxes, partners):
    share = inside(boxes).mean(axis=(1, 2))
    return np.where(inside(boxes), images[partners], images), labels + share * labels[partners]


def last_row_and_column_too(images, labels, boxes, partners):
    return cutmix_by_masks(images, labels, boxes + np.array([0, 0, 1, 1]), partners)


cutmix = {
    "right": [cutmix_by_slices, cutmix_by_masks, cutmix_in_tensorflow],
    "wrong": [
        (as_handed_out, "pasted before"), (area_over_the_edge, "reaches over an edge"),
        (negative_slices, "negative index"), (labels_as_they_were, "labels are as they were"),
        (label_shares_exchanged, "the wrong way round"), (inside_and_outside_exchanged, "the other way round"),
        (rows_for_columns, "rows and columns exchanged"), (pasted_from_itself, "Nothing was pasted"),
        (pasted_in_place, "make new arrays"), (share_of_the_side, "count them"),
        (label_of_the_larger_part, "one class alone"), (label_of_another, "whose label"),
        (labels_added, "do not add up to one"), (last_row_and_column_too, "not the right pixels"),
    ],
}

# --- exercise 5: augmented_batches ---


def slices(split, size=120, **options):
    dataset = tf.data.Dataset.from_tensor_slices(split)
    return dataset.shuffle(size, **options) if size else dataset


def pipelines_of_tf_data(train, validation, augment, batch_size):
    changed = slices(train).batch(batch_size).map(lambda images, labels: (augment(images), labels))
    return changed.prefetch(tf.data.AUTOTUNE), slices(validation, None).batch(batch_size)


def pipelines_one_by_one(train, validation, augment, batch_size):
    changed = slices(train).map(lambda image, label: (augment(image), label)).batch(batch_size)
    return changed, slices(validation, None).cache().batch(batch_size)


class Batches:
    """Batches of NumPy arrays, in a new order at each pass where asked."""

    def __init__(self, split, size, shuffle=False, augment=lambda images: images):
        self.images, self.labels = split
        self.size, self.shuffle, self.augment = size, shuffle, augment

    def __iter__(self):
        count = len(self.images)
        order = np.random.default_rng().permutation(count) if self.shuffle else np.arange(count)
        for start in range(0, count, self.size):
            chosen = order[start:start + self.size]
            yield self.augment(self.images[chosen]), self.labels[chosen]


def pipelines_of_numpy(train, validation, augment, batch_size):
    return Batches(train, batch_size, True, augment), Batches(validation, batch_size)


def shuffled_apart(train, validation, augment, batch_size):
    images, labels = (tf.data.Dataset.from_tensor_slices(part).shuffle(120) for part in train)
    changed = tf.data.Dataset.zip(images, labels).batch(batch_size).map(lambda x, y: (augment(x), y))
    return changed, slices(validation, None).batch(batch_size)


def validation_augmented(train, validation, augment, batch_size):
    return tuple(slices(split).batch(batch_size).map(lambda x, y: (augment(x), y)) for split in (train, validation))


def augmented_once_for_all(train, validation, augment, batch_size):
    images = augment(train[0])
    return slices((images, train[1])).batch(batch_size), slices(validation, None).batch(batch_size)


def cached_after_augmenting(train, validation, augment, batch_size):
    changed = slices(train, None).map(lambda x, y: (augment(x), y)).cache().shuffle(120).batch(batch_size)
    return changed, slices(validation, None).batch(batch_size)


def not_augmented(train, validation, augment, batch_size):
    return slices(train).batch(batch_size), slices(validation, None).batch(batch_size)


def not_shuffled(train, validation, augment, batch_size):
    return Batches(train, batch_size, augment=augment), Batches(validation, batch_size)


def same_order_in_each_epoch(train, validation, augment, batch_size):
    changed = slices(train, reshuffle_each_iteration=False).batch(batch_size).map(lambda x, y: (augment(x), y))
    return changed, slices(validation, None).batch(batch_size)


def batches_shuffled_only(train, validation, augment, batch_size):
    changed = slices(train, None).batch(batch_size).shuffle(120).map(lambda x, y: (augment(x), y))
    return changed, slices(validation, None).batch(batch_size)


def small_buffer(train, validation, augment, batch_size):
    changed = slices(train, 10).batch(batch_size).map(lambda x, y: (augment(x), y))
    return changed, slices(validation, None).batch(batch_size)


def remainder_dropped(train, validation, augment, batch_size):
    changed = slices(train).batch(batch_size, drop_remainder=True).map(lambda x, y: (augment(x), y))
    return changed, slices(validation, None).batch(batch_size)


def repeated(train, validation, augment, batch_size):
    changed = slices(train).repeat().batch(batch_size).map(lambda x, y: (augment(x), y))
    return changed, slices(validation, None).batch(batch_size)


def one_pass_only(train, validation, augment, batch_size):
    return tuple(map(iter, pipelines_of_tf_data(train, validation, augment, batch_size)))


def scaled_in_the_pipeline(train, validation, augment, batch_size):
    return pipelines_of_tf_data((train[0] / np.float32(255), train[1]), validation, augment, batch_size)


def own_batch_size(train, validation, augment, batch_size):
    return pipelines_of_tf_data(train, validation, augment, 128)


def exchanged(train, validation, augment, batch_size):
    return pipelines_of_tf_data(train, validation, augment, batch_size)[::-1]


augmented_batches = {
    "right": [pipelines_of_tf_data, pipelines_one_by_one, pipelines_of_numpy],
    "wrong": [
        (shuffled_apart, "what keeps the two together"), (validation_augmented, "Validation pictures were augmented"),
        (augmented_once_for_all, "what is kept between epochs"),
        (cached_after_augmenting, "what is kept between epochs"),
        (not_augmented, "were not augmented"), (not_shuffled, "in the order in which they were given"),
        (same_order_in_each_epoch, "in the order of the first"), (batches_shuffled_only, "Each training batch holds"),
        (small_buffer, "From how many does shuffle draw"), (remainder_dropped, "what happens to the last batch"),
        (repeated, "do not end"), (one_pass_only, "nothing more after one pass"),
        (scaled_in_the_pipeline, "the pipeline itself must not"), (own_batch_size, "where 16 were asked for"),
        (exchanged, "is it the right split"),
    ],
}

# --- exercise 6: two_curves ---


def gap(net):
    return float((TWO_NETS[net]["accuracy"] - TWO_NETS[net]["val_accuracy"])[:, -1].mean())


READING = {"ahead from epoch": 6, "clear from epoch": 7, "gap without": gap("plain"), "gap with": gap("augmented")}

two_curves = {
    "right": [READING,
              {"ahead from epoch": np.int64(6), "clear from epoch": 7.0, "gap without": 0.2, "gap with": 0.03},
              {"ahead from epoch": tf.constant(6), "clear from epoch": np.array(7),
               "gap without": tf.constant(0.197), "gap with": np.float32(0.032)}],
    "wrong": [
        ({**READING, "ahead from epoch": 2}, "falls behind again"),
        ({**READING, "ahead from epoch": 5}, "counting the epochs from 1"),
        ({**READING, "ahead from epoch": 7}, "where the bands part"),
        ({**READING, "ahead from epoch": 1}, "the two solid lines"),
        ({**READING, "clear from epoch": 6}, "the bands still overlap"),
        ({**READING, "clear from epoch": 8}, "the lowest seed"),
        ({**READING, "gap without": -gap("plain")}, "below zero"),
        ({**READING, "gap without": 19.7}, "per cent"),
        ({**READING, "gap without": gap("augmented"), "gap with": gap("plain")}, "exchanged"),
        ({**READING, "gap with": 0.1}, "between the dashed and the solid line"),
        ({"ahead from epoch": 6}, "no entry 'clear from epoch'"),
        ([6, 7, 0.197, 0.032], "must be a dict"),
    ],
}

SOLUTIONS = {"views": views, "shift": shift, "mixup": mixup, "cutmix": cutmix,
             "augmented_batches": augmented_batches, "two_curves": two_curves}
