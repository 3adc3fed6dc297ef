"""Checks of lesson 5: what a backbone is fed, what is trained, and which features may be used again."""

import numpy as np

from cifar_helpers.checks.common import NotYet, array, entries, expect, number, outcome, right

RESOLUTION_BUDGET = 300  # seconds
MEAN = np.array([103.939, 116.779, 123.68])  # of ImageNet's pixels, blue, green, red
RUNS = {"missing preprocessing": "B", "rate too high": "D", "nothing unfrozen": "A", "fine-tuned with care": "C"}
SETTINGS = ("size", "images", "epochs", "rate", "seed", "judged on")


def check_trainable_counts(counts) -> None:
    """Four predicted numbers of trainable tensors of the net in exercise 1; `counts` is a dict of whole numbers.

    Raises NotYet with a hint at the tensors to count again.
    """
    keys = ("nothing frozen", "backbone frozen", "convolutions unfrozen", "a copy unfrozen")
    found = {key: number(value, f"counts[{key!r}]") for key, value in entries(counts, "counts", keys).items()
             if key in keys}
    free = found["nothing frozen"]
    expect(free != 13, "'nothing frozen': 13 counts every tensor. Which ones of a batch normalisation does no gradient "
                       "ever change?")
    expect(free < 100, "'nothing frozen': these are parameters. Count tensors: a kernel is one, however large.")
    expect(free != 5, "'nothing frozen': these are layers. Count tensors: a layer has none, one or several.")
    expect(free == 9, "'nothing frozen' is wrong: go through the layers one by one. Which convolution has a bias? What "
                      "does a batch normalisation learn?")
    frozen = found["backbone frozen"]
    expect(frozen != 0, "'backbone frozen': what of the head? It is no part of the backbone.")
    expect(frozen == 2, "'backbone frozen' is wrong: count the tensors of the layers that are not in the backbone.")
    some = found["convolutions unfrozen"]
    expect(some != 3, "'convolutions unfrozen': the head is trained too.")
    expect(some != 9, "'convolutions unfrozen': batch normalisation stays frozen, its two learned tensors included.")
    expect(some == 5, "'convolutions unfrozen' is wrong: count the kernels, the biases that there are, and the head.")
    expect(found["a copy unfrozen"] == frozen, "'a copy unfrozen' is wrong: which object does the model hold, the copy "
                                               "or the backbone?")
    right("all four counts. Run the next cell to see Keras count.")


def check_backbone_input(backbone_input) -> None:
    """`backbone_input(images, size)`: uint8 (n, 32, 32, 3) to float (n, size, size, 3), as ResNet50 was trained on.

    Any interpolation is right. Raises NotYet with what arrives instead.
    """
    colours = np.array([[200, 40, 120], [30, 160, 250], [255, 255, 255], [0, 0, 0], [90, 91, 12]], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (5, 32, 32, 3)).copy()
    found = _fed(backbone_input, images, 48)
    expect(found.std(axis=(1, 2)).max() < 0.02 * max(found.std(), 1e-9), "An image of one colour comes back in several "
           "colours: are images enlarged, or is something put around them?")
    values = found.mean(axis=(1, 2))
    pixels = colours.astype(float)
    for fault, wrong in _wrongly_fed(pixels).items():
        expect(abs(values - wrong).max() > 0.02 * wrong.std(), fault)
    alone = _fed(backbone_input, images[:1], 48)
    expect(abs(alone - found[:1]).max() < 0.01 * found.std(), "An image alone comes out otherwise than within a batch: "
           "what is taken away must not depend on the other images.")
    expect(abs(values - _prepared(pixels)).max() < 2, "The values are not those that ResNet50 was trained on: compare "
           "their range with the lesson's cell that prints ranges, and use the backbone's own function.")
    upper_left = np.zeros((1, 32, 32, 3), np.uint8)
    upper_left[:, :16] = 100
    upper_left[:, :, :16] += 60
    for size in (32, 80):
        found = _fed(backbone_input, upper_left, size)[0, :, :, 0] + MEAN[0]
        near, far = slice(2, size // 3), slice(-size // 3, -2)
        corners = [found[rows, columns].mean() for rows in (near, far) for columns in (near, far)]
        expect(np.allclose(corners, [160, 100, 60, 0], atol=4), f"At {size} pixels the picture's parts are not where "
               "they were: is it enlarged as a whole, with rows as rows and columns as columns?")
    right("the backbone gets what it was trained on, at the size that was asked for.")


def _fed(backbone_input, images: np.ndarray, size: int) -> np.ndarray:
    found = outcome(backbone_input, images, size, name="backbone_input")
    return array(found, "What backbone_input returns", shape=(len(images), size, size, 3), kind="f").astype(float)


def _prepared(pixels: np.ndarray) -> np.ndarray:
    """ResNet50's own preprocessing of pixels (n, 3): blue before red, the mean taken away."""
    return pixels[:, ::-1] - MEAN


def _wrongly_fed(pixels: np.ndarray) -> dict[str, np.ndarray]:
    order = "The mean is taken away and the channels are not in the backbone's order"
    return {
        "The pixels arrive as they are: enlarging is half of what the backbone needs.": pixels,
        "The channels are turned round and nothing is taken away: what else does the preprocessing do?":
            pixels[:, ::-1],
        "The values lie between 0 and 1, and ResNet50 never saw such pixels: which function belongs to its weights?":
            pixels / 255,
        "All images come out nearly the same: in what range are the pixels when preprocess_input gets them?":
            _prepared(pixels / 255),
        "The values have a 255th of the contrast that ResNet50 saw: what happens to them after preprocess_input?":
            _prepared(pixels) / 255,
        "The mean is taken away twice: how often does a picture pass preprocess_input?": _prepared(_prepared(pixels)),
        f"{order}: which colour comes first?": pixels - MEAN[::-1],
        f"{order}, so that the mean of blue is taken from red.": pixels - MEAN,
        "The values lie between -1 and 1: that is the preprocessing of another backbone.": pixels / 127.5 - 1,
        "The values are scaled to a standard deviation near 1: that is the preprocessing of another backbone.":
            (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    }


def check_cached_features(cached_features) -> None:
    """`cached_features(extract, name, images, cache)`: features (n, d), extracted only where they are not known.

    `extract` maps images to features, `name` says which extractor it is, `cache` is a dict that the function fills.
    Whole batches or single images may be kept. Raises NotYet with the features that are not those of the images.
    """
    seen, alive = [], []

    def extractor(factor):
        def extract(images):
            seen.append(len(images))
            weights = factor * np.arange(1, 2 * images[0].size + 1, dtype=np.float64).reshape(-1, 2)
            return np.asarray(images, np.float64).reshape(len(images), -1) @ weights
        return extract

    def check(images, fault, factor=1, known=False):
        alive.append(images)  # of a freed array the next one may take the place, and so the id
        seen.clear()
        found = outcome(cached_features, extractor(factor), f"extractor {factor}", images, cache,
                        name="cached_features")
        extracted = sum(seen)
        wanted = extractor(factor)(images)
        found = array(found, "What cached_features returns", shape=wanted.shape)
        expect(np.allclose(found, wanted), fault)
        if known:
            expect(extracted == 0, known)

    cache, images = {}, np.random.default_rng(5).integers(0, 200, (24, 8, 8, 3), np.uint8)
    check(images, "The features of new images are not what extract returns.")
    again = "Equal images, and they are extracted again: what is the key made of, and is anything kept under it?"
    check(images.copy(), "Equal images get other features the second time.", known=again)
    changed = images.copy()
    changed[12, 4, 4, 1] += 1
    check(changed, "One pixel was changed, and the features are still those of the old images: does the key depend on "
                   "every pixel?")
    turned = images[::-1].copy()
    check(turned, "The images come in another order, and their features do not: does the key depend on the order?")
    check(images, "Features that were kept have changed.", known="Other images came in between, and the first ones are "
          "extracted again: training and validation images take turns, and both must be kept.")
    check(images, "Another extractor gets the features of the first: two of them share the cache.", factor=2)
    check(images[:10], "Ten of the images get features that are not theirs.")
    images += 1
    check(images, "The array was changed in place, and its features are still the old ones: the key must come from "
                  "what an array holds, not from which array it is.")
    seen.clear()
    outcome(cached_features, extractor(1), "extractor 1", images.copy(), {}, name="cached_features")
    expect(sum(seen) > 0, "An empty cache, and nothing is extracted: keep the features in the cache that is passed.")
    right("features are kept, and never used for other images or another extractor.")


def head_stage(convolutions: int = 4, size: int = 8):
    """A tiny model whose head has been trained for one step on a frozen backbone, and that backbone.

    The model maps images (b, size, size, 3) to three logits through an extractor, as in lesson 5; the backbone has
    `convolutions` of them, with a batch normalisation behind each.
    """
    import keras
    from keras import layers

    def start(seed):  # seeded by themselves: a check leaves the student's generators alone
        return {"kernel_initializer": keras.initializers.HeNormal(seed)}

    x = inputs = keras.Input((size, size, 3))
    for seed in range(convolutions):
        x = layers.Conv2D(4, 3, padding="same", **start(seed))(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    backbone = keras.Model(inputs, x, name="backbone")
    backbone.trainable = False
    inputs = keras.Input((size, size, 3))
    extractor = keras.Model(inputs, layers.GlobalAveragePooling2D()(backbone(inputs, training=False)))
    inputs = keras.Input((size, size, 3))
    model = keras.Model(inputs, layers.Dense(3, **start(99))(extractor(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, run_eagerly=True)  # a graph would take longer than the step
    model.train_on_batch(*_batch(size))
    return model, backbone


def _batch(size: int):
    return (np.random.default_rng(6).normal(size=(6, size, size, 3)).astype("float32"), np.array([0, 1, 2, 0, 1, 2]))


def check_unfreeze_later(unfreeze_later, convolutions: int = 4) -> None:
    """`unfreeze_later(model, backbone, rate)`: the model, ready for fine-tuning the later half of the convolutions.

    Trains the returned model for one step and looks at which weights move. Raises NotYet with those that move and
    should not, or should and do not.
    """
    import keras

    size, rate = 8, 2e-5
    model, backbone = head_stage(convolutions, size)
    before = model.optimizer
    model = outcome(unfreeze_later, model, backbone, rate, name="unfreeze_later")
    expect(isinstance(model, keras.Model), f"unfreeze_later returns {type(model).__name__}, and must return the model.")
    held = {id(weight) for weight in model.weights}
    expect(all(id(weight) in held for weight in backbone.weights), "The model that comes back does not hold the "
           "backbone that was passed: a copy of a backbone is another object.")
    groups = _groups(backbone, model)
    trained = {id(weight) for weight in model.trainable_weights}
    states = {name: [id(weight) in trained for weight in weights] for name, weights in groups.items()}
    _expect_unfrozen(states)
    expect(model.compiled and model.optimizer is not before, "The optimizer is still that of the head, which knows two "
           "tensors: what must follow when trainable has changed?")
    expect(np.isclose(float(model.optimizer.learning_rate), rate), "The learning rate is "
           f"{float(model.optimizer.learning_rate):.2g}, and should be the one that was passed, {rate:.2g}.")
    _expect_step(model, groups, size)
    right("one step moves the later convolutions and the head, and nothing else.")


def _groups(backbone, model) -> dict[str, list]:
    from keras import layers

    convolutions = [layer for layer in backbone.layers if isinstance(layer, layers.Conv2D)]
    normalisations = [layer for layer in backbone.layers if isinstance(layer, layers.BatchNormalization)]
    half = len(convolutions) // 2
    inside = {id(weight) for weight in backbone.weights}
    return {
        "normalisations": [weight for layer in normalisations for weight in layer.weights],
        "early": [weight for layer in convolutions[:half] for weight in layer.weights],
        "later": [weight for layer in convolutions[half:] for weight in layer.weights],
        "head": [weight for weight in model.weights if id(weight) not in inside],
    }


def _expect_unfrozen(states: dict[str, list[bool]]) -> None:
    expect(not any(states["normalisations"]), "Batch normalisation is trained: its statistics and scales come from "
                                              "millions of pictures, and should stay.")
    expect(all(states["head"]), "The head is frozen: it should go on learning with the convolutions.")
    expect(any(states["early"] + states["later"]), "Not a tensor of this backbone is trainable: is the object that you "
                                                   "unfroze the one inside the model?")
    expect(not all(states["early"] + states["later"]), "All convolutions are trained, and the early half should stay "
                                                       "frozen.")
    expect(not any(states["early"]), "Convolutions of the early half are trained: which half is nearer to the logits?")
    expect(all(states["later"]), "Some of the later half of the convolutions are frozen: where does the half begin, "
                                 "and does each layer from there on learn?")


def _expect_step(model, groups: dict[str, list], size: int) -> None:
    images, labels = _batch(size)
    logits = np.asarray(model(images, training=False), float)
    expect(logits.shape == (6, 3), f"The model returns the shape {logits.shape} for 6 images and 3 classes.")
    highest = logits.max(axis=1, keepdims=True)
    log_shares = logits - highest - np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    wanted = -log_shares[np.arange(6), labels].mean()
    model.run_eagerly = True
    try:
        loss = model.test_on_batch(images, labels, return_dict=True)["loss"]
        before = {name: [weight.numpy().copy() for weight in weights] for name, weights in groups.items()}
        model.train_on_batch(images, labels)
    except Exception as error:
        raise NotYet(f"A training step on labels 0, 1, 2 stops with {type(error).__name__}: is the model compiled, "
                     "with a loss for whole-number labels, after trainable was changed?") from error
    expect(np.isclose(loss, wanted, rtol=1e-3), "The loss is not the cross-entropy of these logits: does the loss know "
                                                "that the model returns logits?")
    moved = {name: [not np.array_equal(old, weight.numpy())
                    for old, weight in zip(before[name], weights, strict=True)] for name, weights in groups.items()}
    expect(not any(moved["normalisations"]), "Batch normalisation moves in a training step: does it run in inference "
                                             "mode?")
    expect(not any(moved["early"]), "Convolutions of the early half move in a training step.")
    expect(all(moved["later"]) and all(moved["head"]), "In a training step the later convolutions or the head do not "
                                                       "move: is the optimizer made for what is trainable now?")


def check_diagnosis(diagnosis) -> None:
    """Which of the four runs, "A" to "D", has which cause; `diagnosis` is a dict of letters, of any case.

    Raises NotYet with what to look at in the plot.
    """
    given = entries(diagnosis, "diagnosis", RUNS)
    letters = {cause: str(given[cause]).strip().upper() for cause in RUNS}
    for cause, letter in letters.items():
        expect(letter in RUNS.values(), f"{cause!r}: {given[cause]!r} is none of the runs A, B, C, D.")
    expect(len(set(letters.values())) == len(RUNS), "A run stands for two causes: each run has one.")
    hints = {
        "missing preprocessing": "at which loss does a net begin that sees hardly any difference between images?",
        "rate too high": "look at the first epoch of fine-tuning, validation before training.",
        "nothing unfrozen": "look for a curve that goes on as before, and at the seconds that its epochs cost.",
        "fine-tuned with care": "look for a curve that falls where the head alone had stopped falling.",
    }
    for cause, hint in hints.items():
        expect(letters[cause] == RUNS[cause], f"{cause!r} is another run: {hint}")
    right("four runs, four causes.")


def resolution_seconds(plan) -> float:
    """What a plan of exercise 6 costs, in seconds: features once for each size and number of images, each head anew."""
    features = {(row["size"], row["images"]) for row in plan}
    return (sum(images * (size / 128) ** 2 / 80 for size, images in features)
            + sum(row["images"] * row["epochs"] / 40_000 for row in plan))


def check_resolution_plan(plan) -> None:
    """Rows of settings, one a training of a head, that compare image sizes; a list of dicts or a table.

    Raises NotYet with the rule that the plan breaks.
    """
    rows = plan.to_dict("records") if hasattr(plan, "to_dict") else plan
    expect(isinstance(rows, (list, tuple)), f"plan is {type(plan).__name__}, and must be a list of dicts, one a "
                                            "training.")
    expect(len(rows) > 0, "plan is empty: it needs a row for each training of a head.")
    rows = [entries(row, f"Row {place} of plan", SETTINGS) for place, row in enumerate(rows)]
    for row in rows:
        for key in SETTINGS[:-1]:
            expect(number(row[key], key) > 0 or key == "seed", f"{key} is {row[key]!r}, and must be greater than 0.")
    judges = {str(row["judged on"]).strip().lower() for row in rows}
    expect(judges <= {"train", "training", "validation", "test"}, f"'judged on' is {', '.join(sorted(judges))}: name a "
                                                                  "split of the data.")
    expect("test" not in judges, "A size would be chosen on the test images: which split is there for choosing?")
    expect(judges == {"validation"}, "Training images do not show which size is better on new images: which split "
                                     "does?")
    sizes = sorted({row["size"] for row in rows})
    expect(len(sizes) >= 2, "There is one size: with what do you compare it?")
    for key in ("images", "epochs", "rate"):
        expect(len({row[key] for row in rows}) == 1, f"{key} changes from row to row as well: what would a difference "
                                                     "between sizes then be due to?")
    seeds = [sorted(row["seed"] for row in rows if row["size"] == size) for size in sizes]
    expect(all(len(set(of_size)) == len(of_size) for of_size in seeds), "The same training stands there twice: a "
           "repeated seed repeats the result, and says nothing new.")
    expect(all(len(of_size) >= 3 for of_size in seeds), "There are fewer than three seeds for a size: one training "
                                                        "does not show how much chance moves the accuracy.")
    expect(all(of_size == seeds[0] for of_size in seeds), "The sizes have different seeds: with the same ones the runs "
                                                          "can be compared in pairs.")
    expect(rows[0]["images"] >= 1_000, "With so few training images the result says little about 10,000 or more: take "
                                       "at least 1,000.")
    cost = resolution_seconds(rows)
    expect(cost <= RESOLUTION_BUDGET, f"The plan costs {cost:,.0f} s, and the budget is {RESOLUTION_BUDGET} s: which "
                                      "part is the most expensive, and what does it grow with?")
    right(f"one thing changes, chance is measured, and {cost:,.0f} of {RESOLUTION_BUDGET} s are used.")
