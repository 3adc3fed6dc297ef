"""How cost grows: seconds against images, image size and model width, each point measured twice, in turn.

Writes `build/scaling.json`: `context` as in common.py, and `records`, a flat list with

    series     images (an epoch of training), features (ResNet50's), size (ResNet50's forward pass) or width (training)
    model      in words
    x          number of images, pixels a side, or the factor on every width
    images     how many went through, in every measurement
    seconds    list, a number a measurement; tracing and loading are not in it
    parameters, forward_mflops, backbone, precision, data   as in common.py
"""

import argparse
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import common
import keras
import numpy as np
from keras import layers

from cifar_helpers import load_cifar10, machine, training, transfer
from cifar_helpers.data import Split

ROUNDS = 2
COUNTS, FEATURE_COUNTS = (1_000, 5_000, 10_000, 25_000, 50_000), (500, 1_000, 2_000)
SIZES, SIZE_IMAGES, FEATURE_SIZE = (32, 64, 96, 128, 160, 224), 200, 96
WIDTHS, WIDTH_IMAGES = (0.5, 1, 2, 4), 2_048
BATCH, FORWARD_BATCH = 64, 50


def training_point(series: str, name: str, x, model: keras.Model, split: Split, batch: int) -> dict:
    """A point whose `measure()` returns the seconds of an epoch of training on the split."""
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = training.batches(split, batch, shuffle=True)

    def measure():
        begun = time.perf_counter()
        model.fit(batches, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - begun

    # traces the step, on the pipeline's own shapes
    model.fit(training.batches(Split(split.images[:batch], split.labels[:batch]), batch, shuffle=True), epochs=1,
              shuffle=False, verbose=0)
    return {"series": series, "model": name, "x": x, "images": len(split), "measure": measure, "net": model}


def forward_point(series: str, x: int, size: int, images: np.ndarray, backbone: keras.Model, weights: str) -> dict:
    """A point whose `measure()` returns the seconds of features for all images at `size` pixels."""
    inputs = keras.Input((32, 32, 3))
    outputs = backbone(transfer.preprocessing("ResNet50")(layers.Resizing(size, size)(inputs)), training=False)
    extractor = keras.Model(inputs, layers.GlobalAveragePooling2D()(outputs))
    extractor.predict_on_batch(images[:FORWARD_BATCH])

    def measure():
        begun = time.perf_counter()
        for start in range(0, len(images), FORWARD_BATCH):
            extractor.predict_on_batch(images[start:start + FORWARD_BATCH])
        return time.perf_counter() - begun

    return {"series": series, "model": f"ResNet50 at {size} pixels", "x": x, "images": len(images),
            "measure": measure, "net": extractor, "backbone": weights}


def widened(factor: float, seed: int) -> keras.Model:
    """Lesson 3's net, as its script builds it, with every block's width multiplied."""
    made = common.lesson_functions("3", ("block", "build"), {
        "keras": keras, "layers": layers, "budget": SimpleNamespace(seed=seed)})
    block = made["block"]
    made["block"] = lambda x, width, *more, **options: block(x, round(width * factor), *more, **options)
    return made["build"](f"width_{str(factor).replace('.', '_')}")


def take_turns(points: list[dict], rounds: int = ROUNDS) -> list[dict]:
    """Measure every point once, then every point again, and return the points with their `seconds`."""
    seconds = [[] for _ in points]
    for _ in range(rounds):
        for point, values in zip(points, seconds, strict=True):
            values.append(round(point["measure"](), 4))
    return [point | {"seconds": values} for point, values in zip(points, seconds, strict=True)]


def measure(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="share of the images (default all)")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "build" / "scaling.json")
    options = parser.parse_args(arguments)
    if not 0 < options.share <= 1:
        parser.error("--share must lie above 0 and at most at 1")
    keras.utils.set_random_seed(options.seed)
    data, precision = load_cifar10(), machine.prefer_bfloat16()
    # only time is measured here, so the validation images may join: 50,000 in all
    images = np.concatenate([data.train.images, data.validation.images])
    labels = np.concatenate([data.train.labels, data.validation.labels])

    def some(count: int) -> Split:
        count = max(BATCH, round(count * options.share))
        return Split(images[:count], labels[:count])

    sequential = common.lesson_functions("2", ("build",), {
        "keras": keras, "layers": layers, "budget": SimpleNamespace(seed=options.seed)})["build"]
    groups = [[training_point("images", "lesson 2's net", len(some(count)),
                              sequential(layers.Rescaling(1 / 255), "baseline"), some(count), BATCH)
               for count in COUNTS]]
    backbone, weights = transfer.load_backbone("ResNet50")  # of no fixed size: one net for all
    groups.append([forward_point("features", len(some(count)), FEATURE_SIZE, some(count).images, backbone, weights)
                   for count in FEATURE_COUNTS])
    groups.append([forward_point("size", size, size, some(SIZE_IMAGES).images, backbone, weights) for size in SIZES])
    groups.append([training_point("width", "lesson 3's net", factor, widened(factor, options.seed),
                                  some(WIDTH_IMAGES), 128) for factor in WIDTHS])
    records = []
    for group in groups:
        for point in take_turns(group):
            net = point["net"]
            described = ("series", "model", "x", "images", "seconds", "backbone")
            records.append({key: point.get(key) for key in described} | {
                "parameters": net.count_params(), "forward_mflops": common.forward_mflops(net),
                "precision": precision, "data": data.source.name})
            shown = " / ".join(f"{value:.2f}" for value in point["seconds"])
            print(f"{point['series']:8} {point['x']:>8,} {shown} s", flush=True)
    common.write(options.out, {"context": common.context(data), "records": records})
    print(options.out)


if __name__ == "__main__":
    sys.exit(common.main(measure))
