"""Real data that comes with scikit-learn, for a first run without a network.

data = load_digits_data(options)
data.train.inputs     # uint8 [1150, 8, 8], 0 to 16
"""

from __future__ import annotations

import numpy as np

from kerastrain.data.source import Classification, Data, Examples
from kerastrain.data.splits import split_rows
from kerastrain.options import TrainOptions

FRACTIONS = {"train": 0.64, "validation": 0.16, "test": 0.20}


def load_digits_data(options: TrainOptions) -> Data:
    """1,797 handwritten digits (scikit-learn's copy of the UCI set's test part), split by the seed.

    Returns:
        Data with inputs uint8 [n, 8, 8], 0 (paper) to 16 (ink), and targets int32
        [n], 0 to 9; every split holds every digit in the same share.
    """
    # Imported here: it takes a second, which a command that only looks at a run need not wait.
    from sklearn.datasets import load_digits

    digits = load_digits()
    examples = Examples(digits.images.astype(np.uint8), digits.target.astype(np.int32))
    rows = split_rows(
        len(examples), fractions=FRACTIONS, seed=options.seed, labels=examples.targets
    )
    return Data(
        train=examples.take(rows["train"]),
        validation=examples.take(rows["validation"]),
        test=examples.take(rows["test"]),
        task=Classification(tuple(range(10))),
        split_rows=rows,
        description={
            "data_set": "digits",
            "source": "sklearn.datasets.load_digits",
            "rows": {split: len(numbers) for split, numbers in rows.items()},
            "inputs": "uint8 [8, 8], 0 to 16",
            "classes": list(range(10)),
        },
    )
