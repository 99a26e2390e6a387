"""What an engineer writes by hand for a table: pandas, preprocessing layers, tf.data, fit, export.

    python benchmarks/keras_table_program.py FILE TARGET EPOCHS FOLDER mlp|tabm

The network is that of `--recipe=tabular_mlp --set=embedding=0`: two layers of 256 with dropout
0.1 on standardised numbers and one feature for each value of a category; or, of the same
features, that of `--recipe=tabular_tabm --set=embedding=0`, whose layers are taken from this
package. Adam, batch 256, an evaluation after each epoch, the best weights restored.
"""

from __future__ import annotations

import sys

import keras
import numpy as np
import pandas
import tensorflow as tf
from sklearn.model_selection import train_test_split


def main(file: str, target: str, epochs: int, folder: str, network: str) -> None:
    frame = pandas.read_csv(file)
    labels = frame.pop(target)
    is_class = labels.dtype == object or isinstance(labels.dtype, pandas.StringDtype)
    y = labels.astype("category").cat.codes.to_numpy() if is_class else labels.to_numpy(np.float32)
    texts = [name for name in frame if not pandas.api.types.is_numeric_dtype(frame[name])]
    frame[texts] = frame[texts].fillna("")
    rest, test = train_test_split(
        np.arange(len(frame)), test_size=0.2, random_state=0, stratify=y if is_class else None
    )
    train, validation = train_test_split(
        rest, test_size=0.2, random_state=0, stratify=y[rest] if is_class else None
    )
    means = frame.iloc[train].mean(numeric_only=True)
    frame = frame.fillna(means)

    inputs, encoded = {}, []
    for name in frame:
        values = frame[name].iloc[train].to_numpy()
        if name in texts:
            inputs[name] = keras.Input((1,), dtype="string", name=name)
            layer = keras.layers.StringLookup(output_mode="one_hot")
            layer.adapt(values.astype(str))
        else:
            inputs[name] = keras.Input((1,), name=name)
            layer = keras.layers.Normalization(axis=None)
            layer.adapt(values.astype(np.float32))
        encoded.append(layer(inputs[name]))
    preprocessing = keras.Model(inputs, keras.layers.Concatenate()(encoded))

    def dataset(rows: np.ndarray, *, shuffled: bool) -> tf.data.Dataset:
        columns = {
            name: frame[name].iloc[rows].to_numpy(str if name in texts else np.float32)[:, None]
            for name in frame
        }
        whole = tf.data.Dataset.from_tensor_slices((columns, y[rows])).batch(256)
        whole = whole.map(lambda x, labels: (preprocessing(x), labels)).unbatch().cache()
        if shuffled:
            whole = whole.shuffle(len(rows))
        return whole.batch(256).prefetch(tf.data.AUTOTUNE)

    features = keras.Input(preprocessing.output_shape[1:])
    units = int(y.max()) + 1 if is_class else 1
    if network == "tabm":
        from kerastrain.networks.ensemble import member_outputs

        size = {"members": 8, "hidden": 128, "layers": 2, "dropout": 0.1}
        output = member_outputs(features, units=units, **size)
    else:
        x = features
        for _ in range(2):
            x = keras.layers.Dense(256, activation="relu")(x)
            x = keras.layers.Dropout(0.1)(x)
        output = keras.layers.Dense(units)(x)
    if is_class:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = ["accuracy"]
    else:
        mean, deviation = float(y[train].mean()), float(y[train].std())
        output = keras.layers.Rescaling(deviation, mean)(output)
        loss, metrics = "mse", [keras.metrics.RootMeanSquaredError()]
        y = y[:, None]
    model = keras.Model(features, output)
    if network == "tabm":
        from kerastrain.networks.ensemble import Ensemble

        model = Ensemble(model, averages="probabilities" if is_class else "numbers")
    model.compile("adam", loss, metrics=metrics)
    stopping = keras.callbacks.EarlyStopping(patience=1000, restore_best_weights=True)
    model.fit(
        dataset(train, shuffled=True),
        validation_data=dataset(validation, shuffled=False),
        epochs=epochs,
        callbacks=[stopping],
        verbose=0,
    )
    print(model.evaluate(dataset(test, shuffled=False), verbose=0))
    keras.Model(inputs, model(preprocessing(inputs))).export(folder, verbose=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
