"""TensorFlow Serving's routes, texts and status codes: one test for each rule."""

from __future__ import annotations

import pytest

ROW = {"instances": [[1.0, 2.0]]}
TWICE, THRICE = [[2.0, 4.0]], [[3.0, 6.0]]


def test_predict_asks_the_newest_version(server):
    reply = server.post("/v1/models/m:predict", ROW)
    assert (reply.status, reply.json) == (200, {"predictions": THRICE})
    assert reply.headers["content-type"] == "application/json"


def test_a_version_is_asked_by_its_number(server):
    reply = server.post("/v1/models/m/versions/1:predict", ROW)
    assert reply.json == {"predictions": TWICE}


def test_a_version_is_asked_by_its_label(server):
    reply = server.post("/v1/models/m/labels/stable:predict", ROW)
    assert reply.json == {"predictions": TWICE}


def test_routes_are_case_insensitive(server):
    assert server.post("/V1/Models/m/VERSIONS/1:PREDICT", ROW).json == {"predictions": TWICE}
    assert server.get("/V1/MODELS/m/METADATA").status == 200


def test_names_are_not_case_insensitive(server):
    assert server.post("/v1/models/M:predict", ROW).status == 404


def test_names_are_percent_decoded(server):
    assert server.post("/v1/models/%6D/labels/%73table:predict", ROW).json == {"predictions": TWICE}


def test_a_query_string_changes_nothing(server):
    assert server.post("/v1/models/m:predict?a=b", ROW).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_any_content_type_is_taken(server, kind):
    assert server.post("/v1/models/m:predict", ROW, {"Content-Type": kind}).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m/metadata"),
        ("GET", "/v1/models/m:predict"),
        ("PUT", "/v1/models/m:predict"),
        ("POST", "/v1/models/m:explain"),
        ("POST", "/v1/models/m/versions/x:predict"),
        ("POST", "/v1/models/m/versions/1/labels/stable:predict"),
        ("POST", "/v1/models:predict"),
        ("GET", "/v1/anything"),
        ("GET", "/v1/"),
    ],
)
def test_another_path_or_method_below_v1_is_a_malformed_request(server, method, path):
    reply = server.ask(method, path)
    assert (reply.status, reply.error) == (400, f"Malformed request: {method} {path}")


def test_a_path_elsewhere_is_not_found(server):
    reply = server.get("/v3/models")
    assert (reply.status, reply.error) == (404, "Not Found: GET /v3/models")


def test_an_unknown_model_is_not_found(server):
    reply = server.post("/v1/models/x:predict", ROW)
    assert (reply.status, reply.error) == (404, "Servable not found for request: Latest(x)")


def test_an_unknown_version_is_not_found(server):
    reply = server.post("/v1/models/m/versions/7:predict", ROW)
    assert (reply.status, reply.error) == (404, "Servable not found for request: Specific(m, 7)")


def test_an_unknown_label_is_named(server):
    reply = server.post("/v1/models/m/labels/x:predict", ROW)
    assert (reply.status, reply.error) == (400, "Unrecognized servable version label: x")


def test_an_unknown_signature_is_named(server):
    reply = server.predict({"signature_name": "x", **ROW})
    message = 'Serving signature name: "x" not found in signature def'
    assert (reply.status, reply.error) == (400, message)


def test_a_version_past_64_bits_is_told(server):
    reply = server.get("/v1/models/m/versions/18446744073709551615")
    message = "Failed to convert version: 18446744073709551615 to numeric."
    assert (reply.status, reply.error) == (400, message)


def test_a_version_of_ten_thousand_digits_is_told(server):
    reply = server.get(f"/v1/models/m/versions/{'9' * 10_000}")
    assert (reply.status, reply.error[:32]) == (400, "Failed to convert version: 99999")


def test_a_name_that_is_no_utf8_is_told(server):
    reply = server.post("/v1/models/%FF:predict", ROW)
    assert (reply.status, reply.error) == (400, "Failed to decode model name:%FF")


def test_a_missing_name_is_told(server):
    reply = server.get("/v1/models")
    assert (reply.status, reply.error) == (400, "Missing model name in request.")


def test_json_errors_are_told_before_unknown_models(server):
    assert server.post("/v1/models/x:predict", b"{").status == 400


def test_status_lists_every_version(server):
    reply = server.get("/v1/models/m")
    assert reply.json == {
        "model_version_status": [
            {
                "version": version,
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            for version in ("2", "1")
        ]
    }


def test_status_of_one_version_by_number_or_label(server):
    for path in ("/v1/models/m/versions/1", "/v1/models/m/labels/stable"):
        (status,) = server.get(path).json["model_version_status"]
        assert status["version"] == "1"


def test_status_of_an_unknown_model_is_not_found(server):
    reply = server.get("/v1/models/x")
    assert (reply.status, reply.error) == (404, "Could not find any versions of model x")


def test_metadata_are_the_signatures_as_protobuf_prints_them(server):
    document = server.get("/v1/models/m/versions/1/metadata").json
    assert document["model_spec"] == {"name": "m", "signature_name": "", "version": "1"}
    signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    tensor = signature["inputs"]["x"]
    assert tensor["dtype"] == "DT_FLOAT"
    assert tensor["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
        "unknown_rank": False,
    }


def test_every_canonical_code_has_its_http_status(server, monkeypatch):
    from kerastrain.serving.failures import ServingError
    from kerastrain.serving.predictor import Predictor

    statuses = {
        "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400,
        "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404,
        "ALREADY_EXISTS": 409, "ABORTED": 409, "RESOURCE_EXHAUSTED": 429,
        "INTERNAL": 500, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
    }  # fmt: skip
    for code, status in statuses.items():

        async def fail(*_, code=code, **__):
            raise ServingError(code, "why")

        monkeypatch.setattr(Predictor, "run", fail)
        reply = server.predict(ROW)
        assert (reply.status, reply.error) == (status, "why")


def test_a_bug_is_500_without_details_and_the_server_goes_on(server, monkeypatch, caplog):
    from kerastrain.serving.predictor import Predictor

    async def fail(*_, **__):
        raise KeyError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "run", fail)
        reply = server.predict(ROW)
    assert reply.status == 500 and "secret" not in reply.error and "secret" in caplog.text
    assert server.predict(ROW).status == 200


def test_healthz_is_503_while_the_server_stops(server):
    reply = server.get("/healthz")
    assert (reply.status, reply.json) == (
        200,
        {"status": "serving", "ready": True, "models": ["m"]},
    )
    server.is_stopping = True
    try:
        reply = server.get("/healthz")
        assert (reply.status, reply.json["status"]) == (503, "stopping")
    finally:
        server.is_stopping = False


def test_requests_are_counted_by_model_and_status(server):
    server.predict({"instances": [["x", "y"]]})
    server.post("/v1/models/nobody-has-this:predict", ROW)
    reply = server.get("/monitoring/prometheus/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    text = reply.body.decode()
    assert ':tensorflow:serving:request_count{model_name="m",status="INVALID_ARGUMENT"' in text
    assert "nobody-has-this" not in text  # else anybody could fill the memory


def test_each_request_is_one_line_of_the_access_log(server):
    server.logged.clear()
    server.post("/v1/models/m/versions/1:predict", ROW)
    server.get("/v1/models/%22%0A")
    good, bad = server.logged
    assert good["milliseconds"] > 0 and good["bytes"] > 0
    assert {k: good[k] for k in ("protocol", "method", "path", "model", "version", "status")} == {
        "protocol": "REST", "method": "POST", "path": "/v1/models/m/versions/1:predict",
        "model": "m", "version": 1, "status": 200,
    }  # fmt: skip
    assert (bad["status"], bad["model"], bad["client"]) == (404, '"\n', "127.0.0.1")
