"""How long the end of a pass over a `tf.data.Dataset` waits for the thread that tunes it.

    python benchmarks/passes.py                 passes of two kinds in turns, some minutes on two cores
    python benchmarks/passes.py --passes 4 --images 1000

Lesson 4's fast net predicts the same images by a pipeline as TensorFlow makes it and by one that `machine.steady`
returned. Printed are the seconds of each pass and those that the processor worked, which are about the same in both.
"""

import argparse
import sys
import time

import common
import numpy as np
import pandas as pd
import tensorflow as tf

from cifar_helpers import machine, models

KINDS = {"as it is": lambda dataset: dataset, "steady": machine.steady}


def one_pass(model, images: np.ndarray, change) -> tuple[float, float]:
    """Wall and processor seconds of predicting all images."""
    dataset = change(tf.data.Dataset.from_tensor_slices(images).batch(100).prefetch(2))
    begun, worked = time.perf_counter(), time.process_time()
    model.predict(dataset, verbose=0)
    return time.perf_counter() - begun, time.process_time() - worked


def measure(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=10, help="of each kind and number of images (%(default)s)")
    parser.add_argument("--images", default="2000,4000,8000,16000", help="numbers with commas between (%(default)s)")
    options = parser.parse_args(arguments)
    machine.prefer_bfloat16()
    model, rows = models.FastCNN(), []
    for count in map(int, options.images.split(",")):
        images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        one_pass(model, images[:100], machine.steady)  # builds the graph
        rows += [(count, kind, *one_pass(model, images, change)) for _ in range(options.passes)
                 for kind, change in KINDS.items()]
    table = pd.DataFrame(rows, columns=["images", "kind", "seconds", "worked"])
    print(table.groupby(["images", "kind"]).agg(shortest=("seconds", "min"), median=("seconds", "median"),
                                                longest=("seconds", "max"), worked=("worked", "median")).round(3))


if __name__ == "__main__":
    sys.exit(common.main(measure))
