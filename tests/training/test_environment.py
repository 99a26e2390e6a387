"""What exact resume depends on is remembered and compared."""

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


def test_what_does_not_change_the_bytes_may_differ():
    recorded = describe_environment(replicas=1)
    assert environment_differences(recorded, {**recorded, "python": "3.99"}) == []
