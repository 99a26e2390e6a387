"""What callbacks remember survives; what they were set to stays as it is set."""

import keras
import numpy as np

from kerastrain.training.progress import callback_progress, restore_progress


class Net:
    metrics = ()
    stop_training = False
    optimizer = keras.optimizers.SGD(0.1)


def plateau():
    callback = keras.callbacks.ReduceLROnPlateau("val_loss", patience=5, min_delta=0.1)
    callback.set_model(Net())
    callback.on_train_begin()
    return callback


def test_reduce_lr_on_plateau_goes_on_counting_where_it_was():
    first = plateau()
    for epoch, value in enumerate([1.0, 0.5, 0.49, 0.48]):
        first.on_epoch_end(epoch, {"val_loss": value})
    again = plateau()
    restore_progress([again], callback_progress([first]), before=callback_progress([again]))
    assert (again.wait, again.best) == (first.wait, first.best) == (2, 0.5)
    again.on_epoch_end(4, {"val_loss": 0.47})  # better by less than min_delta: still waiting
    assert again.wait == 3


class WithState(keras.callbacks.Callback):
    seen = ()

    def get_state(self):
        return {"seen": list(self.seen)}

    def set_state(self, state):
        self.seen = state["seen"]


def test_a_callback_may_say_itself_what_must_survive():
    first, again = WithState(), WithState()
    first.seen = [1, 2]
    restore_progress([again], callback_progress([first]), before=callback_progress([again]))
    assert again.seen == [1, 2]


class Counting(keras.callbacks.Callback):
    def __init__(self, step=2):
        super().__init__()
        self.step, self.count, self.best, self.array = step, 0, None, np.zeros(3)


def test_plain_attributes_survive_and_settings_do_not():
    first, again = Counting(), Counting(step=5)
    first.count, first.best = 7, np.float32(0.5)
    restore_progress([again], callback_progress([first]), before=callback_progress([again]))
    assert (again.count, again.best, again.step) == (7, 0.5, 5)


def test_what_a_start_has_found_out_by_itself_stays(tmp_path):
    path = tmp_path / "log.csv"
    first = keras.callbacks.CSVLogger(path, append=True)
    first.set_model(Net())
    first.on_train_begin()
    first.on_epoch_end(0, {"loss": 1.0})
    kept = callback_progress([first])
    first.on_train_end()
    again = keras.callbacks.CSVLogger(path, append=True)
    again.set_model(Net())
    before = callback_progress([again])
    again.on_train_begin()
    restore_progress([again], kept, before=before)
    again.on_epoch_end(1, {"loss": 0.5})
    again.on_train_end()
    assert path.read_text().splitlines() == ["epoch,loss,val_loss", "0,1.0,NA", "1,0.5,NA"]
