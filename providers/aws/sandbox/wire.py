"""AWS's wire formats on the server's side, driven by botocore's own service models:
requests are parsed and refused as the model says, answers are written in its shapes."""

from __future__ import annotations

import functools
import json
import threading
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from publisher.provider import sdk_imports

Answer = tuple[int, list[tuple[str, str]], bytes]

_building = threading.Lock()


class Refused(Exception):
    """What the cloud refuses: its own error code, message, HTTP status and `reason`
    (EBS's machine-readable one)."""

    def __init__(self, code: str, message: str, status: int = 400, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.reason = reason


@functools.cache
def _model(service: str) -> Any:
    with sdk_imports:
        from moto.core.utils import get_service_model

    return get_service_model(service)


@functools.cache
def _operation(service: str, action: str) -> Any:
    model = _model(service)
    if action not in model.operation_names:
        raise Refused("InvalidAction", f"The action {action} is not valid for this web service.")
    return model.operation_model(action)


def parse_query(service: str, body: bytes) -> tuple[str, dict[str, Any]]:
    """(action, parameters) of an EC2 or STS request. Refuses what the model does
    not know: actions, parameters, types, missing members, values outside an enum."""
    form = dict(parse_qsl(body.decode(), keep_blank_values=True))
    action = form.get("Action", "")
    with _building:  # shapes are built lazily and not thread-safe
        operation = _operation(service, action)
        shape = operation.input_shape
        if shape is None:
            return action, {}
        parameters = _parse(operation, form)
        _validate(shape, parameters)
        known = _serialized(operation, parameters)
    unknown = sorted(set(form) - known - {"Action", "Version"})
    if unknown:
        raise Refused("UnknownParameter", f"The parameter {unknown[0]} is not recognized")
    return action, parameters


def _parse(operation: Any, form: dict[str, str]) -> dict[str, Any]:
    with sdk_imports:
        from moto.core.parse import PROTOCOL_PARSERS

    protocol = operation.service_model.metadata["protocol"]
    request: Any = {"values": form, "body": b"", "headers": {}, "method": "POST"}
    try:
        parsed = PROTOCOL_PARSERS[protocol](operation).parse(request)
    except ValueError as error:
        raise Refused("InvalidParameterValue", f"A value is malformed: {error}") from error
    return dict(parsed)


def _serialized(operation: Any, parameters: Mapping[str, Any]) -> set[str]:
    with sdk_imports:
        from botocore.serialize import create_serializer

    protocol = operation.service_model.metadata["protocol"]
    serializer = create_serializer(protocol, include_validation=False)
    body: Mapping[str, Any] = serializer.serialize_to_request(parameters, operation)["body"]
    return set(body)


def _validate(shape: Any, value: Any, path: str = "") -> None:
    if shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                raise Refused(
                    "MissingParameter", f"The request must contain the parameter {path}{name}"
                )
        for name, member in value.items():
            _validate(shape.members[name], member, f"{path}{name}.")
    elif shape.type_name == "list":
        for number, item in enumerate(value, 1):
            _validate(shape.member, item, f"{path}{number}.")
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        raise Refused(
            "InvalidParameterValue",
            f"Value ({value}) for parameter {path.rstrip('.')} is invalid.",
        )


def query_answer(service: str, action: str, result: Mapping[str, Any]) -> Answer:
    with sdk_imports:
        from moto.core.serialize import SERIALIZERS, SerializationContext

    context = SerializationContext(str(uuid.uuid4()))
    with _building:
        operation = _operation(service, action)
        protocol = operation.service_model.metadata["protocol"]
        answer = SERIALIZERS[protocol](operation, context=context).serialize(result)
    body = answer["body"]
    return 200, [("Content-Type", "text/xml;charset=UTF-8")], _bytes(body)


def json_answer(result: Mapping[str, Any], status: int = 200) -> Answer:
    body = json.dumps(result).encode()
    return status, [("Content-Type", "application/x-amz-json-1.1")], body


def error_answer(service: str, refused: Refused) -> Answer:
    """The refusal in the protocol of that service."""
    request = str(uuid.uuid4())
    code, message = escape(refused.code), escape(refused.message)
    if service == "ec2":
        text = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>"
            f"</Errors><RequestID>{request}</RequestID></Response>"
        )
    elif service == "sts":
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
            f"<Message>{message}</Message></Error><RequestId>{request}</RequestId></ErrorResponse>"
        )
    else:
        details = {"Message": refused.message, "__type": refused.code}
        if refused.reason:
            details["Reason"] = refused.reason
        status, headers, body = json_answer(details, refused.status)
        headers.append(("x-amzn-ErrorType", refused.code))
        headers.append(("x-amzn-RequestId", request))
        return status, headers, body
    return refused.status, [("Content-Type", "text/xml;charset=UTF-8")], text.encode()


def _bytes(body: str | bytes) -> bytes:
    return body.encode() if isinstance(body, str) else body
