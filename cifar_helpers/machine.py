"""What this machine is, and the one place that chooses settings by it."""

import os
import platform
import sys
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def _silenced_stderr():
    """Drop what native code writes to the error stream, which no Python setting reaches."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def import_tensorflow():
    """TensorFlow, imported without its start-up log."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _silenced_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")  # it warns of retracing wherever a lesson makes several models
    return tf


def _cpu() -> tuple[str, set[str]]:
    """The processor's name and, on Linux, its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())


def describe() -> dict:
    """Cores, GPUs, processor and versions that a result depends on, as plain JSON values."""
    tf = import_tensorflow()
    import keras
    import numpy as np

    gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")]
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "processor": _cpu()[0],
        "gpus": gpus,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            "tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__,
        },
    }


def prefer_bfloat16() -> str:
    """Let TensorFlow run convolutions in bfloat16 where the processor has instructions for it.

    Weights, logits and saved models stay float32. Without such instructions bfloat16 is emulated and far slower, so
    it stays off. Returns the precision in use, `bfloat16` or `float32`.
    See https://www.tensorflow.org/api_docs/python/tf/config/optimizer/set_experimental_options
    """
    tf = import_tensorflow()
    able = bool({"avx512_bf16", "amx_bf16"} & _cpu()[1]) and not tf.config.list_physical_devices("GPU")
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": able})
    return "bfloat16" if able else "float32"


def steady(dataset):
    """The `tf.data.Dataset` without the thread that tunes its buffers, for which the end of a pass may have to wait.

    That thread sleeps 10 ms, then twice as long each time, and the iterator waits until it is awake: passes take 0.3,
    0.6, 1.3, 2.6 seconds and so on, up to twice what their work takes. `benchmarks/passes.py` shows it.
    """
    import tensorflow as tf  # whoever has a dataset has it already

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
