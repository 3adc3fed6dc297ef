"""How good a model is, and how sure we can be of it."""

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from scipy import stats
from scipy.special import log_softmax, softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from cifar_helpers.machine import steady
from cifar_helpers.marks import marked


def predict_logits(model: keras.Model, images: np.ndarray, batch_size: int = 100) -> np.ndarray:
    """The model's logits, float32 (n, classes), for uint8 images (n, 32, 32, 3), a batch at a time."""
    dataset = steady(tf.data.Dataset.from_tensor_slices(images).batch(batch_size).prefetch(2))
    return model.predict(dataset, verbose=0).astype(np.float32)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis: shares from 0 to 1 that add up to 1."""
    return softmax(logits, axis=-1)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy, 0 to 1, of logits (n, classes) for labels (n,)."""
    return float(np.mean(logits.argmax(axis=1) == labels))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats of logits (n, classes) for labels (n,)."""
    return float(-np.mean(log_softmax(logits, axis=1)[np.arange(len(labels)), labels]))


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Numbers of images, int64 (classes, classes): a row a true class, a column what it was taken for."""
    return confusion_matrix(labels, logits.argmax(axis=1), labels=range(logits.shape[1]))


def per_class(logits: np.ndarray, labels: np.ndarray, class_names) -> pd.DataFrame:
    """Precision, recall and F1, each 0 to 1, and the number of images, a row a class."""
    values = precision_recall_fscore_support(labels, logits.argmax(axis=1), labels=range(len(class_names)),
                                             zero_division=0)
    table = pd.DataFrame(np.transpose(values), list(class_names), ["precision", "recall", "F1", "images"])
    table.index.name = marked("class")
    return table.astype({"images": int})


def accuracy_interval(logits: np.ndarray, labels: np.ndarray, resamples: int = 2_000, seed: int = 0):
    """The 95% percentile-bootstrap interval of top-1 accuracy, as (low, high), each 0 to 1.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    correct = (logits.argmax(axis=1) == labels).astype(np.float64)
    interval = stats.bootstrap((correct,), np.mean, n_resamples=resamples, batch=100, method="percentile",
                               rng=np.random.default_rng(seed)).confidence_interval
    return float(interval.low), float(interval.high)


def mcnemar(logits_a: np.ndarray, logits_b: np.ndarray, labels: np.ndarray) -> dict:
    """McNemar's exact test of whether two models err equally often on the same images.

    Returns how often only the first and only the second is right, and the two-sided p-value.
    McNemar, Psychometrika 12, 1947; exact form as in Dietterich, Neural Computation 10, 1998.
    """
    a, b = logits_a.argmax(axis=1) == labels, logits_b.argmax(axis=1) == labels
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return {"only first right": only_a, "only second right": only_b, "p": float(p)}


def holm(p_values) -> np.ndarray:
    """p-values corrected for their number by Holm's method, in the given order.

    Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected
