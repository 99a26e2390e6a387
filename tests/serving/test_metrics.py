"""What Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from kerastrain.serving.metrics import Metrics


def samples(metrics):
    text = metrics.text().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_are_counted_by_model_and_status_under_tensorflow_servings_names():
    metrics = Metrics()
    for status in ("OK", "OK", "NOT_FOUND"):
        metrics.observe_request("m", "REST", "predict", status, 0.002)
    found = samples(metrics)
    labels = {"API": "predict", "entrypoint": "REST", "model_name": "m"}

    def key(name, **more):
        return (f":tensorflow:serving:{name}", tuple(sorted({**labels, **more}.items())))

    # This parser adds OpenMetrics' ending, which the text does not have.
    assert found[key("request_count_total", status="OK")] == 2
    assert found[key("request_count_total", status="NOT_FOUND")] == 1
    assert b"\n:tensorflow:serving:request_count{" in metrics.text()
    assert found[key("request_latency_count")] == 3
    assert found[key("request_latency_sum")] == 6000  # microseconds
    buckets = [v for (name, _), v in found.items() if name.endswith("request_latency_bucket")]
    assert buckets == sorted(buckets) and buckets[0] == 0 and buckets[-1] == 3


def test_calls_of_models_are_timed_and_their_rows_counted():
    metrics = Metrics()
    metrics.observe_runtime("m", 0.0005, 8)
    found = samples(metrics)
    model = ("model_name", "m")
    assert found[":tensorflow:serving:runtime_latency_sum", (model,)] == 500
    assert found["kerastrain_serving_batch_rows_bucket", (("le", "4"), model)] == 0
    assert found["kerastrain_serving_batch_rows_bucket", (("le", "8"), model)] == 1


def test_gauges_are_asked_when_the_text_is_made():
    metrics, waiting = Metrics(), [3]
    metrics.set_gauge("kerastrain_serving_waiting_requests", lambda: waiting[0])
    assert samples(metrics)["kerastrain_serving_waiting_requests", ()] == 3
    waiting[0] = 4
    assert samples(metrics)["kerastrain_serving_waiting_requests", ()] == 4


def test_names_that_clients_make_up_do_not_fill_the_memory():
    metrics = Metrics(["m"])
    for i in range(100):
        metrics.observe_request(f"made up {i}", "REST", "predict", "NOT_FOUND", 0.001)
    assert metrics.text().count(b"request_count{") == 1


def test_any_name_of_a_model_is_escaped():
    metrics = Metrics()
    metrics.observe_request('a"b\\c\nd', "gRPC", "predict", "OK", 0.001)
    assert any(("model_name", 'a"b\\c\nd') in labels for _, labels in samples(metrics))
