"""Model files that somebody else may have written: they are checked before Keras opens them.

Keras's safe mode refuses code in a Lambda layer; what else a file names it looked up and called in Keras 3.8
(CVE-2025-1550, CVE-2025-8747, CVE-2025-9906), it ignores safe mode for `.h5` models (CVE-2025-9905) and follows weights
to other files (CVE-2026-1669), and it makes all the weights that a file declares (CVE-2026-0897). So nothing is left to
it: a file is opened where its archive holds three members, its configuration names image layers and their parts only,
and its weights are plain arrays that stand in it.
"""

import io
import json
import random
import zipfile
from contextlib import contextmanager
from pathlib import Path

import h5py
import keras
import tensorflow as tf

from cifar_helpers import models
from cifar_helpers.errors import DataError

LARGEST = 512 << 20  # bytes of a file: it stands in memory twice while it is read
LARGEST_CONFIG = 2 << 20  # bytes; a DenseNet121 takes 0.4 million
MOST_OBJECTS = 100_000  # groups and arrays of weights
OPTIMIZED = 3  # a head that was compiled brings an optimizer, with up to two numbers a weight
COUNTERS = 1_000  # numbers that are made anew: seeds, steps, metrics
CONSTANT = 4  # numbers in a constant of a model: a pixel has three
MEMBERS = ["config.json", "metadata.json", "model.weights.h5"]
HDF5, PICKLE, ZIP_END, ZIP64 = b"\x89HDF\r\n\x1a\n", b"\x80", b"PK\x05\x06", b"PK\x06\x07"

PLAIN = {"__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__"}  # values, in Keras's JSON
NAMES = {
    "keras": {"Sequential", "Model", "DTypePolicy", "FloatDTypePolicy"},
    "keras.models": {"Sequential", "Model"},
    "keras.src.models.functional": {"Functional"},
    "keras.src.models.sequential": {"Sequential"},
    "keras.layers": {
        "InputLayer", "Identity", "Dense", "Flatten", "Reshape", "Permute", "Activation", "ELU", "LeakyReLU", "PReLU",
        "ReLU", "Softmax", "Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D", "ZeroPadding2D",
        "Cropping2D", "UpSampling2D", "MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D",
        "GlobalAveragePooling2D", "BatchNormalization", "LayerNormalization", "GroupNormalization",
        "UnitNormalization", "RMSNormalization", "Normalization", "Add", "Subtract", "Multiply", "Average", "Maximum",
        "Minimum", "Concatenate", "Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise",
        "ActivityRegularization", "Rescaling", "Resizing", "CenterCrop", "RandomFlip", "RandomTranslation",
        "RandomRotation", "RandomZoom", "RandomCrop", "RandomBrightness", "RandomContrast",
    },
    # what preprocess_input is made of where it is called in a model
    "keras.src.ops.numpy": {"Add", "Subtract", "Multiply", "Divide", "TrueDivide", "GetItem", "Stack", "Concatenate"},
}
PARTS = {  # of layers, and of a head that was compiled before it became part of a model
    "keras.initializers": (keras.initializers, keras.initializers.Initializer),
    "keras.regularizers": (keras.regularizers, keras.regularizers.Regularizer),
    "keras.constraints": (keras.constraints, keras.constraints.Constraint),
    "keras.optimizers": (keras.optimizers, keras.optimizers.Optimizer),
    "keras.optimizers.schedules": (keras.optimizers.schedules, keras.optimizers.schedules.LearningRateSchedule),
    "keras.losses": (keras.losses, keras.losses.Loss),
    "keras.metrics": (keras.metrics, keras.metrics.Metric),
}
OWN = {"__main__", models.__name__}  # where a registered class was written: in this notebook, or in the course


def read_model(file: Path, remedy: str) -> keras.Model:
    """The model in a `.keras` file, not compiled. Nothing that the file names runs before it was checked.

    Raises DataError, which ends in the remedy, where the file is not safe to open, and ValueError where it is damaged
    or this Keras cannot read it.
    """
    with _told(file, remedy):
        config, stored = _contents(file)
        _check_names(config)
        if (declared := _declared_numbers(config)) > OPTIMIZED * stored + COUNTERS:
            raise DataError(f"its layers declare {declared:,} numbers, and {stored:,} stand in it")
        return keras.models.load_model(file, compile=False, safe_mode=True)


def check_weights(file: Path, remedy: str) -> None:
    """Make sure that a `.weights.h5` file holds plain arrays only.

    Raises DataError, which ends in the remedy, where it does not, and ValueError where it cannot be read.
    """
    with _told(file, remedy):
        _check_size(file)
        _stored_numbers(file, file.stat().st_size)


@contextmanager
def _told(file: Path, remedy: str):
    try:
        yield
    except DataError as error:
        raise DataError(f"{file} is not opened: {error}: {remedy}.") from error
    except Exception as error:  # Keras and HDF5 raise of every kind where a file is damaged or not of their version
        raise ValueError((str(error).strip() or type(error).__name__).splitlines()[0][:200]) from error


def _check_size(file: Path) -> None:
    if file.stat().st_size > LARGEST:
        raise DataError(f"it is larger than {LARGEST >> 20} MB")


def _contents(file: Path) -> tuple[dict, int]:
    """The configuration, without what a model was compiled with, and how many numbers stand in the weights."""
    _check_size(file)
    with file.open("rb") as handle:
        start = handle.read(len(HDF5))
        handle.seek(max(0, file.stat().st_size - 42))
        end = handle.read()
    if start == HDF5:
        raise DataError("it is an HDF5 file under another name, and Keras's older format of whole models can hold code")
    if start.startswith(PICKLE):
        raise DataError("it is a pickle, and opening one runs the code in it")
    if end[-22:-18] == ZIP_END and (end[:4] == ZIP64 or int.from_bytes(end[-12:-10], "little") != len(MEMBERS)):
        raise DataError(f"its archive does not hold just {', '.join(MEMBERS)}")  # before millions of names are read
    with zipfile.ZipFile(file) as archive:
        if sorted(archive.namelist()) != MEMBERS:
            raise DataError(f"its archive holds {archive.namelist()[:5]!a} and not just {', '.join(MEMBERS)}")
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise DataError(f"its {member.filename} is compressed, which Keras does not do, and may fill memory")
        if (size := archive.getinfo("config.json").file_size) > LARGEST_CONFIG:
            raise DataError(f"its config.json has {size:,} bytes, too many for a model of this course")
        config = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    if not isinstance(config, dict):
        raise DataError("its config.json does not describe a model")
    return config | {"compile_config": None}, _stored_numbers(io.BytesIO(weights), len(weights))


def _stored_numbers(source, size: int) -> int:
    """How many numbers stand in an HDF5 file of so many bytes, given as a path or opened; each must stand in it."""
    numbers = stored = 0
    with h5py.File(source, "r") as file:
        if "model_config" in file.attrs:
            raise DataError("it is a whole model in Keras's older format, which can hold code")
        groups, seen = [file], {h5py.h5o.get_info(file.id).addr}
        while groups:
            group = groups.pop()
            for name in group:
                shown = ascii(f"{group.name}/{name}"[-60:])
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise DataError(f"its weights {shown} are a link, which may lead to another file")
                entry = group[name]
                address = h5py.h5o.get_info(entry.id).addr
                if address in seen or len(seen) >= MOST_OBJECTS:
                    raise DataError(f"its weights {shown} stand there twice, or are too many")
                seen.add(address)
                if isinstance(entry, h5py.Group):
                    groups.append(entry)
                    continue
                if not isinstance(entry, h5py.Dataset) or entry.dtype.kind not in "biuf":
                    raise DataError(f"its weights {shown} are no array of numbers")
                if entry.external or entry.is_virtual:
                    raise DataError(f"its weights {shown} stand in another file")
                if entry.chunks is not None or entry.id.get_storage_size() < entry.nbytes:
                    raise DataError(f"its weights {shown} declare {entry.nbytes:,} bytes, and fewer stand in it")
                numbers, stored = numbers + entry.size, stored + entry.nbytes
    if stored > size:
        raise DataError(f"its weights declare {stored:,} bytes in a file of {size:,}")
    return numbers


def _check_names(config: dict) -> None:
    """Raise DataError where the configuration names anything but layers of the course and their parts."""
    for part in _dicts(config):
        if "class_name" in part:
            _check_name(part)
        if part.get("class_name") in ("__tensor__", "__numpy__") and len(_flat(part["config"]["value"])) > CONSTANT:
            raise DataError(f"a constant in it has more than {CONSTANT} numbers")
        for node in part.get("inbound_nodes") or []:
            # without a symbolic input a layer computes at once, and a padding or repetition can be of any size
            if not any(found.get("class_name") == "__keras_tensor__" for found in _dicts(node)):
                raise DataError(f"its layer {part.get('name')!a:.60} works on constants")


def _dicts(value):
    todo = [value]
    while todo:
        found = todo.pop()
        if isinstance(found, dict):
            yield found
            todo += found.values()
        elif isinstance(found, list):
            todo += found


def _flat(value) -> list:
    return [number for part in value for number in _flat(part)] if isinstance(value, list) else [value]


def _check_name(part: dict) -> None:
    module, name, registered = (part.get(key) for key in ("module", "class_name", "registered_name"))
    if "config" in part and name in PLAIN:
        return
    shown = ascii(f"{module}.{name}"[:60])[1:-1]
    if {"config", "module"} <= part.keys():
        if registered and (module is None or module in OWN):  # Keras looks for the registered name first
            found = keras.saving.get_registered_object(registered)
            if isinstance(found, type) and issubclass(found, keras.Layer) and found.__module__ in OWN:
                return
            raise DataError(f"it names the class {registered!a:.60}, which is not registered here; if you wrote "
                            "that class, run the cell that defines it first")
        if registered in (None, name):
            if name in NAMES.get(module, ()):
                return
            space, kind = PARTS.get(module, (None, ()))
            if isinstance(found := vars(space).get(name) if space else None, type) and issubclass(found, kind):
                return
            if module == "keras.layers" and not hasattr(keras.layers, name):
                raise ValueError(f"there is no layer {shown} in it")
    if name in ("Lambda", "__lambda__"):
        raise DataError("it has a Lambda layer, and that holds code")
    raise DataError(f"it names {shown}, which no model of this course is made of")


def _declared_numbers(config: dict) -> int:
    """How many numbers the model's variables hold, also those of layers that lead nowhere.

    The model is made in a graph, where nothing is computed and no variable takes up memory.
    """
    state = random.getstate()  # layers without a seed draw one, and what is trained next must not depend on this
    try:
        with tf.Graph().as_default() as graph:
            model = keras.models.model_from_json(json.dumps(config))
    finally:
        random.setstate(state)
    if not isinstance(model, keras.Model):
        raise DataError("its config.json does not describe a model")
    variables = [operation for operation in graph.get_operations() if operation.type == "VarHandleOp"]
    return sum(tf.TensorShape(variable.get_attr("shape")).num_elements() for variable in variables)
