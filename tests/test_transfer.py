"""Backbones come from the file that was named or say that they are untrained, and features are extracted once."""

import shutil
import socket

import fixtures
import keras
import numpy as np
import pytest
from keras import layers

from cifar_helpers import marks, paths, transfer
from cifar_helpers.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (25, 32, 32, 3), np.uint8)


def small(width):
    """A constructor with the arguments of Keras's own, for a backbone of two layers that is made in no time."""

    def construct(include_top, weights, input_shape):
        assert not include_top
        if weights is not None:
            raise NotImplementedError("a test must not download")
        inputs = keras.Input(input_shape)
        x = layers.Conv2D(width, 8, strides=32, padding="same", name="stem")(inputs)
        return keras.Model(inputs, layers.BatchNormalization(name="norm")(x), name="small")

    return construct


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.delenv("BACKBONE_PATH", raising=False)
    for name, width in (("ResNet50", 4), ("EfficientNetB0", 5)):
        monkeypatch.setitem(transfer.BACKBONES, name, (small(width), transfer.preprocessing(name)))
    keras.utils.set_random_seed(0)
    yield
    marks.discard(marks.RANDOM_BACKBONE)


def equal_weights(one, other):
    return len(one.weights) == len(other.weights) and all(
        np.array_equal(here, there) for here, there in zip(one.get_weights(), other.get_weights(), strict=True))


# --- load_backbone, from a file ---


@pytest.fixture(scope="session")
def mobilenet(tmp_path_factory):
    """A real backbone with random weights, saved in both formats: (model, folder)."""
    model = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    folder = tmp_path_factory.mktemp("mobilenet")
    model.save(folder / "mobilenetv2.keras")
    model.save_weights(folder / "mobilenetv2.weights.h5")
    return model, folder


@pytest.mark.parametrize(("name", "size"), [("mobilenetv2.keras", None), ("mobilenetv2.weights.h5", 32)])
def test_a_real_backbone_is_read_from_both_formats_and_frozen(name, size, mobilenet, monkeypatch):
    model, folder = mobilenet
    monkeypatch.setenv("BACKBONE_PATH", str(folder / name))
    backbone, weights = transfer.load_backbone("MobileNetV2", size)
    assert weights == f"MobileNetV2 from {name}"
    assert equal_weights(backbone, model)
    assert backbone.weights and not backbone.trainable_weights
    images = IMAGES[:2] / np.float32(255)
    assert np.allclose(backbone(images, training=False), model(images, training=False), atol=1e-5)
    assert marks.RANDOM_BACKBONE not in marks.marked("title")


@pytest.fixture
def saved(tmp_path):
    """The small backbone saved in both formats: (model, folder)."""
    (tmp_path / "weights").mkdir()
    model = small(4)(False, None, (None, None, 3))
    model.save(tmp_path / "weights" / "resnet50.keras")
    model.save_weights(tmp_path / "weights" / "resnet50_imagenet.weights.h5")
    return model, tmp_path / "weights"


@pytest.mark.parametrize("kept", ["resnet50.keras", "resnet50_imagenet.weights.h5"])
def test_a_folder_is_searched_for_the_name_of_the_backbone(kept, saved, monkeypatch):
    model, folder = saved
    for file in folder.iterdir():
        if file.name != kept:
            file.unlink()
    for other in ("aresnet50.keras", "densenet121.keras", "resnet50.txt"):
        (folder / other).write_bytes(b"something else")
    monkeypatch.setenv("BACKBONE_PATH", f" {folder} ")
    backbone, weights = transfer.load_backbone()
    assert weights == f"ResNet50 from {kept}"
    assert equal_weights(backbone, model)


def test_a_file_for_one_size_serves_every_size(tmp_path, monkeypatch):
    model = small(4)(False, None, (32, 32, 3))
    model.save(tmp_path / "fixed.keras")
    monkeypatch.setenv("BACKBONE_PATH", str(tmp_path / "fixed.keras"))
    for size in (None, 32, 64):
        backbone, _ = transfer.load_backbone("ResNet50", size)
        assert equal_weights(backbone, model) and not backbone.trainable_weights
        at = size or 96
        assert backbone(np.zeros((1, at, at, 3))).shape == (1, at // 32, at // 32, 4)


def test_a_path_may_begin_with_a_tilde(saved, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("BACKBONE_PATH", "~/weights/resnet50.keras")
    assert equal_weights(transfer.load_backbone()[0], saved[0])


def test_a_file_with_its_own_pooling_is_refused(saved, tmp_path, monkeypatch):
    model, _ = saved
    keras.Model(model.inputs, layers.GlobalAveragePooling2D()(model.output)).save(tmp_path / "pooled.keras")
    monkeypatch.setenv("BACKBONE_PATH", str(tmp_path / "pooled.keras"))
    with pytest.raises(DataError, match=r"pooled\.keras.*pooling: name the right file"):
        transfer.load_backbone()


def test_a_file_that_gives_a_list_of_one_tensor_still_gives_feature_maps(saved, tmp_path, monkeypatch):
    model, _ = saved
    keras.Model([model.input], [model.output]).save(tmp_path / "list.keras")
    monkeypatch.setenv("BACKBONE_PATH", str(tmp_path / "list.keras"))
    backbone, _ = transfer.load_backbone()
    assert equal_weights(backbone, model)
    assert backbone(np.zeros((1, 64, 64, 3))).shape == (1, 2, 2, 4)


@pytest.mark.parametrize("name", ["", "resnet50", "VGG16"])
def test_an_unknown_backbone_is_named_with_the_known_ones(name):
    with pytest.raises(DataError, match=f"There is no backbone '{name}' here: take one of ResNet50, MobileNetV2, "
                                        "EfficientNetB0, DenseNet121"):
        transfer.load_backbone(name)


@pytest.mark.parametrize(("path", "name", "match"), [
    ("gone.keras", "ResNet50", r"gone\.keras, which does not exist: correct it, or unset it"),
    ("notes.h5", "ResNet50", r"notes\.h5, neither a \.keras model nor a \.weights\.h5 file: save"),
    (".", "EfficientNetB0", r"no \.keras or \.weights\.h5 file in it begins with 'efficientnetb0': put the file there"),
    ("resnet50.keras", "EfficientNetB0", r"resnet50\.keras does not hold a EfficientNetB0 .*: name the right file"),
    ("resnet50_imagenet.weights.h5", "EfficientNetB0", r"cannot be read as EfficientNetB0 .*: name a backbone"),
])
def test_a_file_that_is_not_this_backbone_is_an_error_with_a_remedy(path, name, match, saved, monkeypatch):
    _, folder = saved
    (folder / "notes.h5").write_bytes(b"")
    monkeypatch.setenv("BACKBONE_PATH", str(folder / path))
    with pytest.raises(DataError, match=match) as caught:
        transfer.load_backbone(name)
    assert str(folder) in str(caught.value)


def one_byte(raw):
    return raw[:len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 255]) + raw[len(raw) // 2 + 1:]


DAMAGES = {"empty": lambda raw: b"", "junk": lambda raw: b"junk", "half": lambda raw: raw[:len(raw) // 2]}


@pytest.mark.parametrize(("name", "damage"), [
    *[(name, damage) for name in ("resnet50.keras", "resnet50_imagenet.weights.h5") for damage in DAMAGES.values()],
    ("resnet50.keras", one_byte),
], ids=[*[f"{kind} {damage}" for kind in ("keras", "h5") for damage in DAMAGES], "keras one byte"])
def test_a_damaged_file_is_an_error_that_names_it_with_a_remedy(name, damage, saved, monkeypatch):
    file = saved[1] / name
    file.write_bytes(damage(file.read_bytes()))
    monkeypatch.setenv("BACKBONE_PATH", str(file))
    with pytest.raises(DataError, match=rf"{name} cannot be read as ResNet50 \(.*: name a backbone without its top"):
        transfer.load_backbone()
    assert marks.RANDOM_BACKBONE not in marks.marked("title")


# --- load_backbone, without a file ---


def test_offline_without_a_file_weights_are_random_and_a_banner_and_a_mark_say_so(capsys):
    backbone, weights = transfer.load_backbone()
    said = capsys.readouterr().out
    assert weights == "random weights"
    assert "THIS ResNet50 IS NOT PRETRAINED" in said and "COURSE_OFFLINE=1" in said and "Set BACKBONE_PATH" in said
    assert marks.marked("Accuracy") == "Accuracy · untrained backbone"
    assert backbone.weights and not backbone.trainable_weights


def test_the_mark_is_gone_once_a_file_is_read(saved, monkeypatch, capsys):
    transfer.load_backbone()
    capsys.readouterr()
    monkeypatch.setenv("BACKBONE_PATH", str(saved[1]))
    transfer.load_backbone()
    assert marks.marked("Accuracy") == "Accuracy"
    assert "NOT PRETRAINED" not in capsys.readouterr().out


@pytest.fixture
def keras_downloads(monkeypatch):
    """Pretends that the network is there, and lets a test say what Keras does with it."""
    monkeypatch.setenv("COURSE_OFFLINE", "0")
    seen = []

    def answer(error=None):
        def construct(include_top, weights, input_shape):
            if weights == "imagenet":
                seen.append(socket.getdefaulttimeout())
                if error:
                    raise error
            return small(4)(include_top, None, input_shape)

        monkeypatch.setitem(transfer.BACKBONES, "ResNet50", (construct, transfer.preprocessing("ResNet50")))
        return seen

    return answer


def test_keras_weights_are_taken_where_they_can_be_had(keras_downloads, capsys):
    timeouts = keras_downloads()
    backbone, weights = transfer.load_backbone()
    assert weights == "ResNet50 with Keras's ImageNet weights" and not backbone.trainable_weights
    assert marks.marked("title") == "title" and not capsys.readouterr().out
    assert timeouts == [transfer.DOWNLOAD_SECONDS]


@pytest.mark.parametrize("error", [
    Exception("URL fetch failure on https://storage: None -- [Errno -3] no such name\nsecond line"),
    OSError("timed out"), TimeoutError(),
], ids=["name", "timeout", "no message"])
def test_a_download_that_fails_leads_to_random_weights_and_says_why(error, keras_downloads, capsys):
    before = socket.getdefaulttimeout()
    keras_downloads(error)
    assert transfer.load_backbone()[1] == "random weights"
    said = capsys.readouterr().out
    assert str(error).partition("\n")[0] in said and "second line" not in said
    assert marks.marked("title") == "title · untrained backbone"
    assert socket.getdefaulttimeout() == before


# --- preprocessing ---


@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2", "EfficientNetB0", "DenseNet121"])
def test_preprocessing_inside_a_model_survives_saving(name, tmp_path):
    preprocess = transfer.preprocessing(name)
    inputs = keras.Input((32, 32, 3))
    backbone = small(4)(False, None, (None, None, 3))
    model = keras.Model(inputs, backbone(preprocess(layers.Resizing(64, 64)(inputs)), training=False))
    before = model.predict(IMAGES, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(again.predict(IMAGES, verbose=0), before)
    by_hand = preprocess(np.array(layers.Resizing(64, 64)(IMAGES.astype(np.float32))))
    assert np.allclose(before, backbone(by_hand, training=False), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("name", "black", "white"), [
    ("ResNet50", (-103.939, -116.779, -123.68), (151.061, 138.221, 131.32)),
    ("MobileNetV2", (-1, -1, -1), (1, 1, 1)),
    ("EfficientNetB0", (0, 0, 0), (255, 255, 255)),
    ("DenseNet121", (-2.1179, -2.0357, -1.8044), (2.2489, 2.4286, 2.64)),
])
def test_preprocessing_takes_pixels_from_0_to_255(name, black, white):
    pixels = np.array([0, 255], np.float32)[:, None, None, None] * np.ones((1, 1, 1, 3), np.float32)
    assert np.allclose(transfer.preprocessing(name)(pixels)[:, 0, 0], [black, white], atol=1e-3)


# --- extract_features ---


def extractor(size=32, preprocess=None, seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((32, 32, 3))
    x = layers.Resizing(size, size)(inputs)
    x = small(4)(False, None, (None, None, 3))((preprocess or layers.Rescaling(1 / 255))(x), training=False)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


@pytest.fixture
def predictions(monkeypatch):
    """The numbers of images that models were asked for; pieces are of ten images, and no graph is traced."""
    monkeypatch.setattr(transfer, "CHUNK", 10)
    asked = []

    def counting(model, images):
        asked.append(len(images))
        return keras.ops.convert_to_numpy(model(images, training=False))

    monkeypatch.setattr(keras.Model, "predict_on_batch", counting)
    return asked


def pieces(tmp_path):
    return sorted(tmp_path.glob("cache/features/*/*"))


@pytest.mark.parametrize("chunk", [500, 10])
def test_features_are_those_of_the_model(chunk, monkeypatch):
    monkeypatch.setattr(transfer, "CHUNK", chunk)
    model = extractor()
    features, seconds = transfer.extract_features(model, IMAGES)
    assert (features.dtype, features.shape) == (np.float32, (25, 4))
    assert np.allclose(features, model(IMAGES, training=False), atol=1e-5)
    assert type(seconds) is float and seconds > 0


def test_a_second_call_reads_the_cache_and_gives_the_same_seconds(predictions):
    first = transfer.extract_features(extractor(), IMAGES)
    predictions.clear()
    # layers made anew have other numbers in their names, as in another session
    again = transfer.extract_features(extractor(), IMAGES.copy(), "another label")
    assert not predictions
    assert np.array_equal(again[0], first[0]) and again[1] == first[1]


def test_more_images_cost_only_those_that_are_new(predictions):
    transfer.extract_features(extractor(), IMAGES[:20])
    predictions.clear()
    transfer.extract_features(extractor(), IMAGES)
    assert predictions == [5]


@pytest.mark.parametrize(("other", "images", "made"), [
    (lambda: extractor(), np.concatenate([IMAGES[:12], IMAGES[12:13] ^ 1, IMAGES[13:]]), [10]),
    (lambda: extractor(), IMAGES[::-1].copy(), [10, 10, 5]),
    (lambda: extractor(seed=1), IMAGES, [10, 10, 5]),
    (lambda: extractor(size=64), IMAGES, [10, 10, 5]),
    (lambda: extractor(preprocess=layers.Rescaling(1 / 127.5)), IMAGES, [10, 10, 5]),
    (lambda: extractor(preprocess=transfer.preprocessing("ResNet50")), IMAGES, [10, 10, 5]),
    (lambda: extractor(preprocess=transfer.preprocessing("MobileNetV2")), IMAGES, [10, 10, 5]),
], ids=["one image", "order", "weights", "size", "scale", "preprocessing", "other preprocessing"])
def test_what_has_changed_is_not_taken_from_the_cache(other, images, made, predictions):
    for preprocess in (None, transfer.preprocessing("DenseNet121")):
        transfer.extract_features(extractor(preprocess=preprocess), IMAGES)
    predictions.clear()
    model = other()
    features, _ = transfer.extract_features(model, images)
    assert predictions == made
    assert np.allclose(features, model(images), atol=1e-4)


def test_one_changed_weight_is_enough(predictions):
    model = extractor()
    transfer.extract_features(model, IMAGES)
    predictions.clear()
    variance = next(weight for weight in model.weights if "moving_variance" in weight.path)
    variance.assign_add([0, 0, 0, 1])
    transfer.extract_features(model, IMAGES)
    assert predictions == [10, 10, 5]


@pytest.mark.parametrize("damage", [
    lambda raw: b"", lambda raw: b"junk",
    lambda raw: raw[:len(raw) // 2], one_byte,
], ids=["empty", "junk", "half", "one byte"])
def test_a_damaged_piece_is_made_anew(damage, predictions, tmp_path):
    first, _ = transfer.extract_features(extractor(), IMAGES)
    predictions.clear()
    file = pieces(tmp_path)[0]
    file.write_bytes(damage(file.read_bytes()))
    again, _ = transfer.extract_features(extractor(), IMAGES)
    assert np.allclose(again, first, atol=1e-6) and len(predictions) == 1
    transfer.extract_features(extractor(), IMAGES)
    assert len(predictions) == 1


def test_a_piece_without_its_arrays_is_made_anew(predictions, tmp_path):
    transfer.extract_features(extractor(), IMAGES)
    predictions.clear()
    np.savez(pieces(tmp_path)[0], features=np.zeros((10, 4)))
    transfer.extract_features(extractor(), IMAGES)
    assert len(predictions) == 1


def test_an_interrupted_extraction_goes_on_where_it_stopped(predictions, monkeypatch, tmp_path):
    counting = keras.Model.predict_on_batch

    def interrupted(model, images):
        if len(predictions) == 2:
            raise KeyboardInterrupt
        return counting(model, images)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(keras.Model, "predict_on_batch", interrupted)
        transfer.extract_features(extractor(), IMAGES)
    assert len(pieces(tmp_path)) == 2
    predictions.clear()
    model = extractor()
    features, seconds = transfer.extract_features(model, IMAGES)
    assert predictions == [5]
    assert np.allclose(features, model(IMAGES), atol=1e-5)
    assert transfer.extract_features(model, IMAGES)[1] == seconds


def test_without_a_cache_folder_features_are_extracted_and_a_line_says_so(predictions, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file"))
    before = fixtures.tree(tmp_path)
    model = extractor()
    assert np.allclose(transfer.extract_features(model, IMAGES)[0], model(IMAGES), atol=1e-5)
    assert capsys.readouterr().out.count("Features are not cached (") == 1
    assert fixtures.tree(tmp_path) == before


def test_pieces_name_their_format_and_leave_no_lock(predictions, tmp_path):
    transfer.extract_features(extractor(), IMAGES)
    assert all(file.parent.name.startswith(f"{paths.CACHE_FORMAT}-") and file.suffix == ".npz"
               for file in pieces(tmp_path))
    assert len(pieces(tmp_path)) == 3


def test_a_cache_that_was_deleted_is_made_again(predictions, tmp_path):
    transfer.extract_features(extractor(), IMAGES)
    shutil.rmtree(tmp_path / "cache")
    transfer.extract_features(extractor(), IMAGES)
    assert predictions == [10, 10, 5] * 2


def test_every_second_image_and_swapped_colours_are_images_too(predictions):
    model = extractor()
    for images in (IMAGES[::2], IMAGES[..., ::-1]):
        assert np.allclose(transfer.extract_features(model, images)[0], model(images), atol=1e-5)
