"""Bodies of networks for tables: features [batch, f] in, features [batch, d] out.

x = perceptron(x, hidden=256, layers=2, dropout=0.1)
x = residual(x, width=192, blocks=4, dropout=0.1)
x = cross(x, crosses=3)
"""

from __future__ import annotations

import keras

from kerastrain.arguments import COUNT, COUNT_OR_0, SHARE_BELOW_1


def perceptron(
    x: keras.KerasTensor, *, hidden: int, layers: int, dropout: float, activation: str = "relu"
) -> keras.KerasTensor:
    """Dense layers, each followed by its activation and dropout; [batch, hidden].

    Raises:
        ArgumentError: a number is out of range.
    """
    COUNT.check("The perceptron", "hidden", hidden)
    COUNT_OR_0.check("The perceptron", "layers", layers)
    SHARE_BELOW_1.check("The perceptron", "dropout", dropout)
    for _ in range(layers):
        x = keras.layers.Dense(hidden, activation=activation)(x)
        if dropout:
            x = keras.layers.Dropout(dropout)(x)
    return x


def residual(
    x: keras.KerasTensor, *, width: int, blocks: int, dropout: float, factor: int = 2
) -> keras.KerasTensor:
    """ResNet for tables (Gorishniy et al. 2021, "Revisiting Deep Learning Models for Tabular
    Data", section 3.2); [batch, width].

    Block: x + Dropout(Linear(Dropout(ReLU(Linear(BatchNorm(x)))))), the inner layer `factor`
    times as wide, the second dropout left out as in their tuned defaults; then ReLU(BatchNorm(x)).

    Raises:
        ArgumentError: a number is out of range.
    """
    COUNT.check("The ResNet", "width", width)
    COUNT.check("The ResNet", "blocks", blocks)
    SHARE_BELOW_1.check("The ResNet", "dropout", dropout)
    x = keras.layers.Dense(width)(x)
    for _ in range(blocks):
        inner = keras.layers.BatchNormalization()(x)
        inner = keras.layers.Dense(factor * width, activation="relu")(inner)
        if dropout:
            inner = keras.layers.Dropout(dropout)(inner)
        x = x + keras.layers.Dense(width)(inner)
    return keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x))


def cross(x: keras.KerasTensor, *, crosses: int) -> keras.KerasTensor:
    """The cross network of DCN-v2; the same shape as x.

    x_{l+1} = x_0 ⊙ (W x_l + b) + x_l (Wang et al. 2021, "DCN V2", eq. 1): each cross adds
    products of features of one degree more.

    Raises:
        ArgumentError: `crosses` is out of range.
    """
    COUNT.check("The cross network", "crosses", crosses)
    first = x
    for _ in range(crosses):
        x = first * keras.layers.Dense(x.shape[-1])(x) + x
    return x
