"""TensorFlow Serving's gRPC services on grpc.aio.

    server = create_grpc_server(predictor)
    port = server.add_insecure_port("127.0.0.1:8500")
    await server.start()

The messages and servicers are those of tensorflow-serving-api, so the stubs that clients have
work as they are. One thing is not done: models are not changed over gRPC
(HandleReloadConfigRequest); what the server is told at its start, and the folders, decide.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from kerastrain.serving.access_log import AccessLog
from kerastrain.serving.failures import ServingError
from kerastrain.serving.grpc_calls import Calls
from kerastrain.serving.inference import (
    INPUT,
    classification_result,
    find_signature,
    regression_result,
    serialized_examples,
)
from kerastrain.serving.models import Models, Use
from kerastrain.serving.predictor import Predictor
from kerastrain.serving.servable import (
    CLASSIFY,
    DEFAULT_SIGNATURE,
    REGRESS,
    Servable,
    Signature,
)
from kerastrain.serving.tensors import tensor_array, tensor_proto

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_STATES = get_model_status_pb2.ModelVersionStatus.State


def create_grpc_server(
    predictor: Predictor, access_log: AccessLog | None = None, *, max_calls: int | None = None
) -> grpc.aio.Server:
    """A server without a port yet.

    Args:
        max_calls: at one time; more are refused with RESOURCE_EXHAUSTED.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", predictor.limits.max_request_bytes),
            ("grpc.max_send_message_length", -1),
            # Else a second server on the same port would take half of the first one's clients.
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=max_calls,
    )
    calls = Calls(predictor.metrics, access_log)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(predictor, calls), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(predictor, calls), server
    )
    return server


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference, GetModelMetadata."""

    def __init__(self, predictor: Predictor, calls: Calls):
        self._predictor = predictor
        self._calls = calls

    async def Predict(self, request: Any, context: Context) -> Any:
        return await self._calls.answer(
            "predict", request, context, self._predict(request, context)
        )

    async def Classify(self, request: Any, context: Context) -> Any:
        return await self._calls.answer(
            "classify", request, context, self._classify(request, context)
        )

    async def Regress(self, request: Any, context: Context) -> Any:
        return await self._calls.answer(
            "regress", request, context, self._regress(request, context)
        )

    async def MultiInference(self, request: Any, context: Context) -> Any:
        return await self._calls.answer(
            "multi_inference", request, context, self._multi_inference(request, context)
        )

    async def GetModelMetadata(self, request: Any, context: Context) -> Any:
        return await self._calls.answer("metadata", request, context, self._metadata(request))

    async def _predict(self, request: Any, context: Context) -> predict_pb2.PredictResponse:
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with _use(self._predictor, request.model_spec) as servable:
            signature = servable.signatures.get(name)
            if signature is None:
                raise ServingError(
                    "FAILED_PRECONDITION", f'Serving signature key "{name}" not found.'
                )
            limit = self._predictor.limits.max_request_bytes
            inputs = {
                key: tensor_array(tensor, max_bytes=limit) for key, tensor in request.inputs.items()
            }
            outputs = await self._predictor.run(
                servable,
                signature,
                inputs,
                list(request.output_filter),
                timeout_seconds=context.time_remaining(),
            )
            return predict_pb2.PredictResponse(
                model_spec=_spec_of(servable, signature),
                outputs={key: tensor_proto(array) for key, array in outputs.items()},
            )

    async def _classify(
        self, request: Any, context: Context
    ) -> classification_pb2.ClassificationResponse:
        with _use(self._predictor, request.model_spec) as servable:
            signature, rows, outputs = await self._infer(
                servable, request.model_spec, CLASSIFY, request.input, context
            )
            return classification_pb2.ClassificationResponse(
                model_spec=_spec_of(servable, signature),
                result=classification_result(outputs, rows=rows),
            )

    async def _regress(self, request: Any, context: Context) -> regression_pb2.RegressionResponse:
        with _use(self._predictor, request.model_spec) as servable:
            signature, rows, outputs = await self._infer(
                servable, request.model_spec, REGRESS, request.input, context
            )
            return regression_pb2.RegressionResponse(
                model_spec=_spec_of(servable, signature),
                result=regression_result(outputs, rows=rows),
            )

    async def _multi_inference(
        self, request: Any, context: Context
    ) -> inference_pb2.MultiInferenceResponse:
        _check_tasks(request.tasks)
        response = inference_pb2.MultiInferenceResponse()
        with _use(self._predictor, request.tasks[0].model_spec) as servable:
            for task in request.tasks:
                signature, rows, outputs = await self._infer(
                    servable, task.model_spec, task.method_name, request.input, context
                )
                result = response.results.add(model_spec=_spec_of(servable, signature))
                if task.method_name == CLASSIFY:
                    found = classification_result(outputs, rows=rows)
                    result.classification_result.CopyFrom(found)
                else:
                    result.regression_result.CopyFrom(regression_result(outputs, rows=rows))
        return response

    async def _infer(
        self, servable: Servable, model_spec: Any, method_name: str, given: Any, context: Context
    ) -> tuple[Signature, int, dict[str, Any]]:
        signature = find_signature(servable, model_spec.signature_name, method_name)
        examples = serialized_examples(given)
        outputs = await self._predictor.run(
            servable, signature, {INPUT: examples}, timeout_seconds=context.time_remaining()
        )
        return signature, len(examples), outputs

    async def _metadata(self, request: Any) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if not request.metadata_field:
            raise ServingError(
                "INVALID_ARGUMENT",
                "GetModelMetadataRequest must specify at least one metadata_field",
            )
        for field in request.metadata_field:
            if field != "signature_def":
                raise ServingError("INVALID_ARGUMENT", f"Metadata field {field} is not supported")
        with _use(self._predictor, request.model_spec) as servable:
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, definition in servable.meta_graph.signature_def.items():
                signatures.signature_def[name].CopyFrom(definition)
            response = get_model_metadata_pb2.GetModelMetadataResponse(
                model_spec=_spec_of(servable)
            )
            response.metadata["signature_def"].Pack(signatures)
            return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; HandleReloadConfigRequest is refused."""

    def __init__(self, predictor: Predictor, calls: Calls):
        self._predictor = predictor
        self._calls = calls

    async def GetModelStatus(self, request: Any, context: Context) -> Any:
        return await self._calls.answer("status", request, context, self._status(request))

    async def HandleReloadConfigRequest(self, request: Any, context: Context) -> Any:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            "Models are not changed over gRPC: start 'kerastrain serve' with another --model. New "
            "versions in the folders that it has are found by themselves.",
        )

    async def _status(self, request: Any) -> get_model_status_pb2.GetModelStatusResponse:
        name, version, label = _asked(self._predictor.models, request.model_spec)
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._predictor.models.statuses(name, version, label):
            each = response.model_version_status.add()
            each.version = status.version
            each.state = _STATES.Value(status.state)
            each.status.error_code = ServingError(status.error_code, "").grpc_code
            each.status.error_message = status.error_message
        return response


def _asked(models: Models, model_spec: Any) -> tuple[str, int | None, str | None]:
    """Name, version and label of a ModelSpec."""
    name, kind = model_spec.name, model_spec.WhichOneof("version_choice")
    if kind == "version_label":
        return name, None, model_spec.version_label
    version = model_spec.version.value if kind == "version" else None
    # ovmsclient writes 0 for "the newest", and models whose versions begin with 0 are few.
    if version == 0 and not models.has_version(name, 0):
        version = None
    return name, version, None


def _use(predictor: Predictor, model_spec: Any) -> Use:
    name, version, label = _asked(predictor.models, model_spec)
    if not name:
        raise ServingError("INVALID_ARGUMENT", "Missing ModelSpec")
    return predictor.models.use(name, version, label)


def _spec_of(servable: Servable, signature: Signature | None = None) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(
        name=servable.model, signature_name=signature.name if signature is not None else ""
    )
    spec.version.value = servable.version
    return spec


def _check_tasks(tasks: Any) -> None:
    if not tasks:
        raise ServingError("INVALID_ARGUMENT", "Inference request for zero tasks.")
    signatures = set()
    for task in tasks:
        if task.model_spec.name != tasks[0].model_spec.name:
            raise ServingError(
                "INVALID_ARGUMENT",
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            )
        if task.method_name not in (CLASSIFY, REGRESS):
            raise ServingError(
                "UNIMPLEMENTED", f"Unrecognized signature method_name: {task.method_name}"
            )
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in signatures:
            raise ServingError("INVALID_ARGUMENT", f"Duplicate evaluation of signature: {name}")
        signatures.add(name)
