"""Ten classes of small drawn pictures, so that every lesson runs where CIFAR-10 cannot be had.

The pictures are hard on purpose: position, size, angle, colours and background vary, a stray shape and noise get in
the way, so that a better model scores better. Flips and small turns keep the class, as they do in CIFAR-10.
"""

import numpy as np

CLASS_NAMES = ("bars", "cross", "disc", "frame", "heart", "rhombus", "ring", "square", "star", "triangle")
VERSION = 1
CHUNK = 500  # pictures drawn at once: small enough for the processor's cache
# Skies are blue and meadows green in photographs too: a weak hint of colour that a linear model can use.
TINTS = np.array([[0.12 * np.cos(2 * np.pi * (label / 10 + channel / 3)) for channel in range(3)]
                  for label in range(10)], np.float32)


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far inside a shape of radius 1 a point lies: positive inside, about -1 a radius away."""
    r = np.hypot(x, y)
    ax, ay = np.abs(x), np.abs(y)
    match shape:
        case "bars":
            return np.minimum(np.minimum(0.9 - ax, 0.9 - ay), np.abs(np.mod(y + 0.9, 0.72) - 0.36) - 0.16)
        case "cross":
            return np.maximum(np.minimum(0.95 - ax, 0.32 - ay), np.minimum(0.95 - ay, 0.32 - ax))
        case "disc":
            return 0.85 - r
        case "frame":
            return 0.22 - np.abs(np.maximum(ax, ay) - 0.58)
        case "heart":
            return 0.8 - np.hypot(x, y - 0.6 * np.sqrt(ax) + 0.2)
        case "rhombus":
            return (0.95 - (ax * 1.5 + ay)) / 1.5
        case "ring":
            return 0.22 - np.abs(r - 0.65)
        case "square":
            return 0.75 - np.maximum(ax, ay)
        case "star":
            return 0.62 + 0.3 * np.cos(5 * np.arctan2(x, y)) - r
        case "triangle":
            return np.minimum(0.55 - (-y), (0.95 - y - ax * 1.75) / 2)


def _upsampled(coarse: np.ndarray) -> np.ndarray:
    """Bilinear enlargement of (n, 5, 5, 3) to (n, 32, 32, 3)."""
    at = np.linspace(0, 4, 32, dtype=np.float32)
    low = np.minimum(at.astype(int), 3)
    part = at - low
    rows = coarse[:, low] * (1 - part)[:, None, None] + coarse[:, low + 1] * part[:, None, None]
    return rows[:, :, low] * (1 - part)[:, None] + rows[:, :, low + 1] * part[:, None]


def _draw(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures for labels (n,), as uint8 (n, 32, 32, 3)."""
    n = len(labels)

    def uniform(low, high, *shape):
        return rng.uniform(low, high, (n, *shape)).astype(np.float32)

    grid = np.arange(32, dtype=np.float32) - 15.5
    image = _upsampled(uniform(0.2, 0.8, 1, 1, 3) + uniform(-0.25, 0.25, 5, 5, 3) + TINTS[labels][:, None, None])
    for stray in (True, False):
        radius = uniform(3, 5, 1, 1) if stray else uniform(6, 12, 1, 1)
        reach = 14 if stray else 6
        x, y = grid[None, None, :] - uniform(-reach, reach, 1, 1), uniform(-reach, reach, 1, 1) - grid[None, :, None]
        angle = uniform(-0.35, 0.35, 1, 1)
        x, y = (x * np.cos(angle) - y * np.sin(angle)) / radius, (x * np.sin(angle) + y * np.cos(angle)) / radius
        depth = np.empty((n, 32, 32), np.float32)
        drawn = rng.integers(0, 10, n) if stray else labels
        for number, shape in enumerate(CLASS_NAMES):
            depth[drawn == number] = _inside(shape, x[drawn == number], y[drawn == number])
        cover = np.clip(depth * radius + 0.5, 0, 1)[..., None] * uniform(0.5, 1, 1, 1, 1)
        colour = uniform(0, 1, 1, 1, 3) + _upsampled(uniform(-0.25, 0.25, 5, 5, 3))
        image += cover * (colour - image)
    image += uniform(0.02, 0.1, 1, 1, 1) * rng.standard_normal(image.shape, np.float32)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def generate(train_per_class: int, test_per_class: int, seed: int = VERSION):
    """Draw the stand-in: (train images, train labels, test images, test labels), the same at every call.

    Images are uint8 (n, 32, 32, 3), labels int64 (n,) from 0 to 9 in mixed order.
    """
    parts = []
    for stream, per_class in enumerate((train_per_class, test_per_class)):
        rng = np.random.default_rng([seed, stream])
        labels = rng.permutation(np.repeat(np.arange(10), per_class))
        chunks = [_draw(labels[start:start + CHUNK], rng) for start in range(0, len(labels), CHUNK)]
        parts += [np.concatenate(chunks), labels]
    return parts
