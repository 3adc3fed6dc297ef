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
