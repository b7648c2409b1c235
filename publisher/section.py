"""What all sections of a pipeline file have in common; sizes and durations as people write them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from publisher.model import GIB, MIB

_UNITS = {"": 1, "B": 1, "KIB": 1024, "MIB": MIB, "GIB": GIB, "TIB": 1024 * GIB}
_FORM = 'write a size such as "10GiB" or "2048MiB"'


def parse_size(value: object) -> object:
    """A text such as 10GiB, or a number of bytes, as bytes."""
    if not isinstance(value, str):
        if isinstance(value, bool):
            raise ValueError(_FORM)
        return value
    match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", value)
    if not match or match[2].upper() not in _UNITS:
        raise ValueError(_FORM)
    return int(match[1]) * _UNITS[match[2].upper()]


Size = Annotated[
    int,
    BeforeValidator(parse_size, json_schema_input_type=str | int),
    Field(ge=MIB, multiple_of=MIB),
]


_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600}


def parse_duration(value: object) -> object:
    """A text such as 10min, or a number of seconds, as seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+)\s*([a-z]*)\s*", value)
    if not match or match[2] not in _SECONDS:
        raise ValueError('write a duration such as "90s", "10min" or "2h", or seconds')
    return int(match[1]) * _SECONDS[match[2]]


Duration = Annotated[
    int, BeforeValidator(parse_duration, json_schema_input_type=str | int), Field(ge=0)
]
Timeout = Annotated[
    int, BeforeValidator(parse_duration, json_schema_input_type=str | int), Field(ge=1)
]


class Section(BaseModel):
    """Base of all sections: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
