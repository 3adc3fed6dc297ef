"""Pretrained backbones, from a local file or Keras, and features that are extracted once."""

import hashlib
import os
import re
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from cifar_helpers import marks, saved
from cifar_helpers.data import NOTICE
from cifar_helpers.errors import DataError
from cifar_helpers.paths import CACHE_FORMAT, cache_dir, locked, read_arrays, whole_file
from cifar_helpers.training import without_counters

# name: (constructor, the preprocessing that its weights were trained with)
BACKBONES = {
    "ResNet50": (keras.applications.ResNet50, keras.applications.resnet50.preprocess_input),
    "MobileNetV2": (keras.applications.MobileNetV2, keras.applications.mobilenet_v2.preprocess_input),
    "EfficientNetB0": (keras.applications.EfficientNetB0, keras.applications.efficientnet.preprocess_input),
    "DenseNet121": (keras.applications.DenseNet121, keras.applications.densenet.preprocess_input),
}
RANDOM = "random weights"
DOWNLOAD_SECONDS = 15  # without a byte
CHUNK = 500  # images a cache file


def load_backbone(name: str = "ResNet50", image_size: int | None = None) -> tuple[keras.Model, str]:
    """A frozen backbone without its classifier, and a sentence on where its weights come from.

    Takes the file that `BACKBONE_PATH` names (a `.keras` model, a `.weights.h5`, or a folder in which a file's name
    begins with the backbone's), else Keras's own ImageNet weights, else random weights with a banner. It maps
    preprocessed images (b, h, w, 3) to feature maps (b, h/32, w/32, channels).

    Raises DataError where the name is unknown or the named file does not hold this backbone.
    """
    if name not in BACKBONES:
        raise DataError(f"There is no backbone {name!r} here: take one of {', '.join(BACKBONES)}.")
    marks.discard(marks.RANDOM_BACKBONE)
    named = os.environ.get("BACKBONE_PATH", "").strip()
    if named:
        path = named_file(Path(named).expanduser(), name)
        backbone, weights = _from_file(path, name, image_size), f"{name} from {path.name}"
    else:
        backbone, weights = _official(name, image_size)
    backbone.trainable = False
    return backbone, weights


def preprocessing(name: str):
    """The backbone's `preprocess_input`: maps pixels from 0 to 255 to what its weights were trained on."""
    return BACKBONES[name][1]


def _build(name: str, image_size: int | None, weights: str | None = None) -> keras.Model:
    return BACKBONES[name][0](include_top=False, weights=weights, input_shape=(image_size, image_size, 3))


def named_file(path: Path, name: str) -> Path:
    if path.is_dir():
        pattern = re.compile(rf"{name}[^a-z0-9].*\.?(keras|weights\.h5)", re.IGNORECASE)  # ResNet50, not ResNet50V2
        found = sorted(file for file in path.iterdir() if pattern.fullmatch(file.name) and file.is_file())
        if not found:
            raise DataError(f"BACKBONE_PATH is the folder {path}, and no .keras or .weights.h5 file in it begins "
                            f"with {name.lower()!r}: put the file there, or unset BACKBONE_PATH.")
        return found[0]
    if not path.is_file():
        raise DataError(f"BACKBONE_PATH is {path}, which does not exist: correct it, or unset it to use Keras's "
                        "ImageNet weights.")
    if not path.name.endswith((".keras", ".weights.h5")):
        raise DataError(f"BACKBONE_PATH is {path}, neither a .keras model nor a .weights.h5 file: "
                        "save the backbone as one of these. A whole model as .h5, or a pickle, can hold code.")
    return path


def _from_file(path: Path, name: str, image_size: int | None) -> keras.Model:
    backbone = _build(name, image_size)
    remedy = "name a backbone without its top that Keras itself saved, or unset BACKBONE_PATH"
    try:
        if path.name.endswith(".keras"):
            loaded = saved.read_model(path, remedy)
            weights = _checked(loaded, backbone, path, name).get_weights()
            # its own layers, which may have other strides than Keras's, at any size; a file of an older Keras gives
            # lists of one tensor
            backbone = keras.models.clone_model(keras.Model(loaded.inputs[0], loaded.outputs[0]),
                                                input_tensors=keras.Input((image_size, image_size, 3)))
            backbone.set_weights(weights)
        else:
            saved.check_weights(path, remedy)
            backbone.load_weights(path)
    except DataError:
        raise
    except Exception as error:  # of every kind, where the layers are not those of a backbone
        raise DataError(f"{path} cannot be read as {name} ({_first_line(error)[:160]}): name a backbone "
                        f"without its top, saved by Keras {keras.__version__} or older.") from error
    return backbone


def _checked(loaded: keras.Model, expected: keras.Model, path: Path, name: str) -> keras.Model:
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in (loaded, expected)]
    if shapes[0] != shapes[1] or len(loaded.outputs[0].shape) != 4:
        raise DataError(f"{path} does not hold a {name} without its top and pooling: name the right file, "
                        "or change the backbone's name in the lesson.")
    return loaded


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _official(name: str, image_size: int | None) -> tuple[keras.Model, str]:
    before = socket.getdefaulttimeout()
    try:
        if os.environ.get("COURSE_OFFLINE") == "1":
            raise OSError("COURSE_OFFLINE=1")
        socket.setdefaulttimeout(DOWNLOAD_SECONDS)  # Keras waits for ever by itself
        return _build(name, image_size, "imagenet"), f"{name} with Keras's ImageNet weights"
    except Exception as error:  # Keras raises a bare Exception where a download fails
        marks.add(marks.RANDOM_BACKBONE)
        print(f"{NOTICE}\n  THIS {name} IS NOT PRETRAINED: its weights are random.\n  The ImageNet weights could not "
              f"be had ({_first_line(error)[:100]}).\n  The steps below work, their accuracies mean nothing. "
              f"Set BACKBONE_PATH to a\n  .keras file of the backbone (see README.md).\n{NOTICE}")
        return _build(name, image_size), RANDOM
    finally:
        socket.setdefaulttimeout(before)


def extract_features(extractor: keras.Model, images: np.ndarray, label: str = "features") -> tuple[np.ndarray, float]:
    """The extractor's outputs for uint8 images (n, 32, 32, 3), float32 (n, d), and the seconds that they cost.

    They are kept on disk in pieces, under a name made from the extractor's layers and weights and from the images
    themselves: another size, backbone, preprocessing or image never finds them, and an interrupted extraction goes
    on where it stopped. Of several processes that ask for a piece at once one makes it; where pieces cannot be kept,
    one line says so. The seconds are those of the extraction, also when the pieces come from the cache.
    """
    folder = cache_dir() / "features" / f"{CACHE_FORMAT}-{_digest(extractor)}"
    pieces, seconds, faults = [], 0.0, []
    with tqdm(total=len(images), desc=label, unit="image", file=sys.stdout) as bar:
        for start in range(0, len(images), CHUNK):
            part = np.ascontiguousarray(images[start:start + CHUNK])
            file = folder / f"{hashlib.sha256(part.data).hexdigest()[:24]}.npz"
            piece, cost = _stored(file) or _piece(extractor, part, file, faults)
            pieces.append(piece)
            seconds += cost
            bar.update(len(part))
    if faults:
        print(f"Features are not cached ({faults[0]}): the next run extracts them again. "
              "Set COURSE_CACHE to a folder that can be written, or free some space.")
    return np.concatenate(pieces), seconds


def _stored(file: Path) -> tuple[np.ndarray, float] | None:
    try:
        stored = read_arrays(file)
        return stored["features"], float(stored["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged: made anew


def _piece(extractor: keras.Model, images: np.ndarray, file: Path, faults: list) -> tuple[np.ndarray, float]:
    lock = file.with_name(f".{file.name}.lock")
    with locked(lock, "extracting the same features") as alone:
        try:
            return _stored(file) or _extract(extractor, images, file, alone, faults)
        finally:
            with suppress(OSError):  # there would be one a piece; who gets the lock next looks for the piece first
                lock.unlink()


def _extract(extractor, images, file, alone, faults) -> tuple[np.ndarray, float]:
    begun = time.perf_counter()
    features = np.concatenate([extractor.predict_on_batch(images[at:at + 100]) for at in range(0, len(images), 100)])
    cost = time.perf_counter() - begun
    try:
        with whole_file(file, alone) as handle:
            np.savez(handle, features=features, seconds=cost)
    except OSError as error:
        faults.append(error)
    return features, cost


def _digest(model: keras.Model) -> str:
    """One name for equal layers with equal weights; the counters that Keras appends to layer names are dropped."""
    digest = hashlib.sha256(without_counters(model.to_json()).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()[:16]
