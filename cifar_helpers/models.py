"""The subclassed networks that lesson 4 writes; importing this module lets Keras load them."""

import keras
from keras import layers


@keras.saving.register_keras_serializable("cifar_helpers")
class SubclassedCNN(keras.Model):
    """Two convolutions, each with max-pooling, and two dense layers; returns logits."""

    def __init__(self, classes=10, dropout=0.5, **kwargs):
        super().__init__(**kwargs)
        self.classes, self.dropout_rate = classes, dropout
        self.scale = layers.Rescaling(1 / 255)
        self.conv1 = layers.Conv2D(32, 3, activation="relu")
        self.conv2 = layers.Conv2D(64, 3, activation="relu")
        self.pool, self.flatten = layers.MaxPooling2D(), layers.Flatten()
        self.hidden = layers.Dense(128, activation="relu")
        self.dropout = layers.Dropout(dropout)
        self.logits = layers.Dense(classes)

    def call(self, images, training=False):
        x = self.pool(self.conv1(self.scale(images)))
        x = self.pool(self.conv2(x))
        x = self.dropout(self.hidden(self.flatten(x)), training=training)
        return self.logits(x)

    def get_config(self):
        return {**super().get_config(), "classes": self.classes, "dropout": self.dropout_rate}


@keras.saving.register_keras_serializable("cifar_helpers")
class FastCNN(keras.Model):
    """A whitening convolution, three blocks of two convolutions, the maximum over positions; returns logits."""

    def __init__(self, width=32, activation="relu", classes=10, **kwargs):
        super().__init__(**kwargs)
        self.width, self.activation, self.classes = width, activation, classes
        self.scale = layers.Rescaling(1 / 64, offset=-2)
        self.whiten = layers.Conv2D(24, 2, use_bias=False, trainable=False)
        widths = (width, width, 4 * width, 4 * width, 4 * width, 4 * width)
        self.convolutions = [layers.Conv2D(filters, 3, padding="same", use_bias=False) for filters in widths]
        self.norms = [layers.BatchNormalization(momentum=0.6, scale=False) for _ in widths]
        self.relu, self.activate = layers.ReLU(), layers.Activation(activation)
        self.pool, self.peak = layers.MaxPooling2D(), layers.GlobalMaxPooling2D()
        self.logits = layers.Dense(classes, use_bias=False)

    def call(self, images, training=False):
        x = self.relu(self.whiten(self.scale(images)))
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = convolution(x)
            if number % 2 == 0:
                x = self.pool(x)
            x = self.activate(norm(x, training=training))
        return self.logits(self.peak(x)) / 9

    def get_config(self):
        return {**super().get_config(), "width": self.width, "activation": self.activation, "classes": self.classes}
