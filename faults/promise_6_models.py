"""Hostile model files, as a saved run and as a backbone: the published ways past Keras's safe mode, and others."""

import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers

from cifar_helpers import runs, transfer
from cifar_helpers.errors import CourseError

PROMISE = "Nothing executes: no model runs a program or reads another file when it is loaded"
SECONDS, BYTES = 30, 2 << 30  # that a case may take
MUTATIONS = 500  # at full scale, half of them of a .weights.h5
FUNCTIONS = (  # a few of the callables that a configuration was or could be made to call
    ("os", "system"), ("builtins", "eval"), ("builtins", "exec"), ("subprocess", "run"), ("posix", "system"),
    ("shutil", "rmtree"), ("pickle", "loads"), ("numpy", "load"), ("importlib", "import_module"), ("runpy", "run_path"),
    ("keras.utils", "get_file"), ("keras.src.utils.file_utils", "get_file"), ("keras.models", "load_model"),
    ("keras.config", "enable_unsafe_deserialization"), ("keras.saving", "load_model"),
    ("keras.src.utils.python_utils", "func_load"), ("keras.src.backend.common.global_state", "set_global_attribute"),
    ("cifar_helpers.runs", "save_run"), ("tensorflow", "constant"), ("keras.initializers", "deserialize"),
)
CLASSES = (("subprocess", "Popen"), ("keras.layers", "Pipeline"), ("keras.utils", "FeatureSpace"), ("keras", "Layer"),
           ("keras.src.models.functional", "Model"), ("keras.layers", "Wrapper"), ("keras.callbacks", "LambdaCallback"))


def small() -> keras.Model:
    """A backbone of two layers."""
    inputs = keras.Input((None, None, 3), name="input_layer")
    x = layers.Conv2D(4, 8, strides=32, padding="same", name="stem")(inputs)
    return keras.Model(inputs, layers.BatchNormalization(name="norm")(x), name="small")


def _members(model: keras.Model, folder: Path) -> dict[str, bytes]:
    model.save(folder / "good.keras")
    with zipfile.ZipFile(folder / "good.keras") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _archive(members, compression=zipfile.ZIP_STORED) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compression) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return written.getvalue()


def _layer(module, name, config, registered=None, args=(), **more) -> dict:
    """A layer of a functional model, called on the model's input or on `args`."""
    tensor = {"class_name": "__keras_tensor__", "config": {
        "shape": [None, None, None, 3], "dtype": "float32", "keras_history": ["input_layer", 0, 0]}}
    return {"module": module, "class_name": name, "config": config, "registered_name": registered, "name": "evil",
            "inbound_nodes": [{"args": list(args) or [tensor], "kwargs": {}}], **more}


def _configs(marker: Path):
    """(what, layer): layers that run something, read something or fill the memory, to be added to a model."""
    order = f"open({str(marker)!r}, 'w')"
    secret = str(marker.with_name("secret.txt"))
    for module, name in FUNCTIONS:
        argument = f"echo > '{marker}'" if name == "system" else order
        yield f"{module}.{name} called", _layer(module, "function", name, name, args=[argument])
        yield f"{module}.{name} as a class", _layer(module, name, {}, name)
        yield f"{module}.{name} as an activation", _layer("keras.layers", "Dense", {
            "units": 1, "activation": {"module": module, "class_name": "function", "config": name,
                                       "registered_name": name}})
    for module, name in CLASSES:
        yield f"{module}.{name}", _layer(module, name, {"args": ["touch", str(marker)]})
    code = keras.layers.Lambda(eval(f"lambda x: {order} and x")).get_config()
    yield "Lambda with code", _layer("keras.layers", "Lambda", code)
    yield "Lambda without a module, as older formats have it", {"class_name": "Lambda", "config": code}
    yield "code as an activation", _layer("keras.layers", "Dense", {"units": 1, "activation": code["function"]})
    yield "code as an argument", _layer("keras.layers", "Activation", {"activation": "relu"}, args=[code["function"]])
    yield "code deep in a list", _layer("keras.layers", "Rescaling", {"scale": [[[[code["function"]]]]]})
    yield "a SavedModel", _layer("keras.layers", "TFSMLayer", {"filepath": secret, "call_endpoint": "serving_default"})
    yield "a PyTorch module", _layer("keras.layers", "TorchModuleWrapper", {"module": "gASVAA=="})
    yield "a vocabulary file", _layer("keras.layers", "StringLookup", {"vocabulary": secret, "mask_token": None})
    yield "a vocabulary file of numbers", _layer("keras.layers", "IntegerLookup", {"vocabulary": secret})
    yield "a vocabulary file of texts", _layer("keras.layers", "TextVectorization", {"vocabulary": secret})
    inner = _layer("keras.layers", "Lambda", code)
    yield "a wrapped Lambda", _layer("keras.layers", "TimeDistributed", {"layer": inner})
    yield "a type of TensorFlow", {"class_name": "__typespec__", "config": [], "spec_name": "system", "module": "os",
                                   "registered_name": "system"}
    yield "a class that is not registered", _layer(None, "Net", {}, "Custom>Net")
    yield "another name than its own", _layer("keras.layers", "Dense", {"units": 1}, "cifar_helpers>FastCNN")
    yield "compiled with code", _layer("keras.layers", "ReLU", {}, compile_config={"loss": code["function"]})
    yield "a trillion weights", _layer("keras.layers", "Conv2D", {"filters": 10 ** 6, "kernel_size": [600, 600]})
    yield "a trillion weights behind another layer", _layer("keras", "Sequential", {"name": "evil", "layers": [
        {"module": "keras.layers", "class_name": "Dense", "config": {"units": 10 ** 6}, "registered_name": None}] * 2})
    yield "a padded constant", _layer("keras.layers", "ZeroPadding2D", {"padding": 10 ** 6}, args=[
        {"class_name": "__tensor__", "config": {"value": [[[[1.0]]]], "dtype": "float32"}}])
    yield "a large constant", _layer("keras.src.ops.numpy", "Add", {}, "Add", args=[
        {"class_name": "__tensor__", "config": {"value": [1.0] * 1000, "dtype": "float32"}}])


def _with_layer(members: dict, layer: dict) -> bytes:
    config = json.loads(members["config.json"])
    config["config"]["layers"].append(layer)
    return _archive(members | {"config.json": json.dumps(config)})


def _weights(good: bytes, folder: Path):
    """(what, bytes): weights files that lead elsewhere, or declare what they do not hold."""
    elsewhere = folder / "elsewhere.h5"
    with h5py.File(elsewhere, "w") as other:
        other["secret"] = np.arange(4.0)
    (folder / "raw.bin").write_bytes(bytes(64))

    def external_link(file):
        file["layers/evil"] = h5py.ExternalLink(str(elsewhere), "/secret")

    def soft_link(file):
        file["layers/evil"] = h5py.SoftLink("/layers")

    def external_storage(file):
        file.create_dataset("evil", (8,), "f8", external=[(str(folder / "raw.bin"), 0, 64)])

    def virtual(file):
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(elsewhere), "secret", (4,))
        file.create_virtual_dataset("evil", layout)

    def declared(file):
        file.create_dataset("evil", (1 << 40,), "f4")

    def compressed(file):
        file.create_dataset("evil", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")

    def circle(file):
        file["layers/evil"] = file["layers"]

    def twice(file):
        file["evil"] = next(iter(file["layers"].values()))

    def texts(file):
        file["evil"] = ["a text"]

    def kind(file):
        file["evil"] = np.dtype("f4")

    def older_model(file):
        file.attrs["model_config"] = "{}"

    for change in (external_link, soft_link, external_storage, virtual, declared, compressed, circle, twice, texts,
                   kind, older_model):
        (folder / "evil.h5").write_bytes(good)
        with h5py.File(folder / "evil.h5", "r+") as file:
            change(file)
        yield change.__name__.replace("_", " "), (folder / "evil.h5").read_bytes()


class _Order:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def _archives(good: dict, marker: Path):
    """(what, bytes): files that are no archive of Keras, or one with more in it."""
    for protocol in (2, 3, 4, 5):
        yield f"a pickle, protocol {protocol}", pickle.dumps(_Order(marker), protocol)
    whole = marker.with_name("whole.h5")
    code = eval(f"lambda x: open({str(marker)!r}, 'w') and x")
    keras.Sequential([keras.Input((3,)), layers.Lambda(code, output_shape=(3,))]).save(whole)
    yield "a whole model as .h5", whole.read_bytes()
    for name in ("../evil", "/evil", "assets/vocabulary.txt", "model.weights.npz", "C:\\evil", "evil\x01"):
        yield f"a member {name!r}", _archive({**good, name: b"evil"})
    yield "a member twice", _archive([*good.items(), ("model.weights.h5", good["model.weights.h5"])])
    yield "many members", _archive([*good.items(), *((str(number), b"") for number in range(20_000))])
    yield "compressed members", _archive(good | {"config.json": b" " * (1 << 26)}, zipfile.ZIP_DEFLATED)
    yield "a large config.json", _archive(good | {"config.json": b" " * (1 << 23)})
    yield "a layer, no model", _archive(good | {"config.json": json.dumps(_layer("keras.layers", "ReLU", {}))})
    yield "a list, no model", _archive(good | {"config.json": b"[]"})


def _attempt(load, marker: Path, refused: bool) -> str:
    """What was lost in one attempt to load a file; empty where it was refused, or where it may be read."""
    begun = time.monotonic()
    try:
        load()
        said = "it was opened" if refused else ""
    except CourseError as error:
        said = "" if "is not opened" in str(error) or not refused else f"no reason is given: {str(error)[:120]}"
    except Exception as error:  # the fault that is looked for
        said = f"{type(error).__name__}: {str(error)[:120]}"
    if marker.exists():
        marker.unlink()
        said = f"code in it ran; {said}"
    if (seconds := time.monotonic() - begun) > SECONDS:
        said = f"it took {seconds:.0f} s; {said}"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > BYTES:
        said = f"it took more than {BYTES >> 30} GB; {said}"
    return said


def _loaders(folder: Path):
    """Functions that take bytes and load them: as a saved run, as a backbone, as a backbone's weights."""
    run = runs.Run("baseline", folder / "run", {"versions": {"keras": keras.__version__}}, {})
    run.folder.mkdir()
    transfer.BACKBONES["Small"] = (lambda include_top, weights, input_shape: small(), None)

    def saved_run(raw):
        (run.folder / "model.keras").write_bytes(raw)
        return lambda: runs.load_model(run)

    def backbone(raw, name="small.keras"):
        (folder / name).write_bytes(raw)
        return lambda: transfer._from_file(folder / name, "Small", None)

    return saved_run, backbone, lambda raw: backbone(raw, "small.weights.h5")


def cases(scale: str):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        marker = folder / "marker"
        (folder / "secret.txt").write_text("secret\n")
        good = _members(small(), folder)
        as_run, as_backbone, as_weights = _loaders(folder)
        try:
            hostile = [(what, _with_layer(good, layer)) for what, layer in _configs(marker)]
            hostile += _archives(good, marker)
            weights = list(_weights(good["model.weights.h5"], folder))
            hostile += [(f"weights: {what}", _archive(good | {"model.weights.h5": raw})) for what, raw in weights]
            for what, raw in hostile:
                for where, put in (("run", as_run), ("backbone", as_backbone)):
                    said = _attempt(put(raw), marker, refused=True)
                    yield f"{what}, as a {where}", not said, said
            for what, raw in weights:
                said = _attempt(as_weights(raw), marker, refused=True)
                yield f"weights: {what}, as .weights.h5", not said, said
            for what, put, raw in (("run", as_run, _archive(good)), ("backbone", as_backbone, _archive(good)),
                                   ("backbone's weights", as_weights, good["model.weights.h5"])):
                try:
                    put(raw)()
                    yield f"an honest {what} is read", True, ""
                except Exception as error:  # a check that refuses everything is none
                    yield f"an honest {what} is read", False, str(error)[:200]
        finally:
            del transfer.BACKBONES["Small"]
    if scale == "full":
        yield from _mutated()


def _mutated():
    """Seeded damage to honest files, in a child: a fault of the HDF5 library would end the process."""
    first = 0
    while first < MUTATIONS:
        child = subprocess.Popen([sys.executable, __file__, str(first)], stdout=subprocess.PIPE, text=True,
                                 stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        for line in child.stdout:
            if line.startswith("case "):
                _, number, said = line.rstrip("\n").split(" ", 2)
                first = int(number) + 1
                yield f"damage {number}", not said, said
        if code := child.wait():
            yield f"damage {first}", False, f"the process ended: {signal.Signals(-code).name if code < 0 else code}"
            first += 1


def _mutate(raw: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(raw)
    kind = rng.integers(4)
    at = int(rng.integers(len(raw)))
    if kind == 0:
        return raw[:at]
    if kind == 1:
        damaged[at:at] = rng.bytes(int(rng.integers(1, 64)))
    else:
        # the first kilobytes and the last hold what describes the rest
        span = min(len(raw), 4096)
        for _ in range(int(rng.integers(1, 8))):
            at = int(rng.integers(span)) if kind == 2 else int(rng.integers(len(raw)))
            damaged[at] = int(rng.choice([0, 255, damaged[at] ^ 1 << int(rng.integers(8))]))
    return bytes(damaged)


def _damage(first: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        good = _members(small(), folder)
        _, as_backbone, as_weights = _loaders(folder)
        for number in range(first, MUTATIONS):
            rng = np.random.default_rng([6, number])
            if number % 2:
                load = as_weights(_mutate(good["model.weights.h5"], rng))
            elif number % 4:
                member = ("config.json", "model.weights.h5")[number // 4 % 2]  # its checksum is made anew
                load = as_backbone(_archive(good | {member: _mutate(good[member], rng)}))
            else:
                load = as_backbone(_mutate(_archive(good), rng))
            said = _attempt(load, folder / "marker", refused=False)
            print(f"case {number} {said.splitlines()[0] if said else ''}", flush=True)


if __name__ == "__main__":
    _damage(int(sys.argv[1]))
