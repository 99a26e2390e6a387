"""What exact resume depends on is remembered and compared."""

import keras

from kerastrain.training.environment import describe_environment, environment_differences


def test_the_same_process_has_no_differences():
    environment = describe_environment(replicas=1)
    assert environment_differences(environment, describe_environment(replicas=1)) == []
    assert environment["intra_op_threads"] >= 1


def test_threads_versions_and_replicas_are_told_apart():
    recorded = describe_environment(replicas=1)
    now = {**recorded, "intra_op_threads": 64, "tensorflow": "9.0", "replicas": 2}
    assert environment_differences(recorded, now) == [
        "intra_op_threads: {} recorded, 64 now".format(recorded["intra_op_threads"]),
        "replicas: 1 recorded, 2 now",
        "tensorflow: {} recorded, 9.0 now".format(recorded["tensorflow"]),
    ]


def test_settings_of_keras_and_xla_are_told_apart_where_they_were_recorded(monkeypatch):
    recorded = describe_environment(replicas=1)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    monkeypatch.setattr(keras.src.backend.config, "_IMAGE_DATA_FORMAT", "channels_first")
    now = describe_environment(replicas=1)
    assert environment_differences(recorded, now) == [
        "XLA_FLAGS: not set recorded, --xla_cpu_enable_fast_math=true now",
        "image_data_format: channels_last recorded, channels_first now",
    ]
    before = {name: value for name, value in recorded.items() if name not in ("XLA_FLAGS",)}
    assert environment_differences(before, now)[0].startswith("image_data_format")


def test_what_does_not_change_the_bytes_may_differ():
    recorded = describe_environment(replicas=1)
    assert environment_differences(recorded, {**recorded, "python": "3.99"}) == []
