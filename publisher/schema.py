"""JSON Schema of pipeline.toml, so that editors complete and check it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, create_model

from publisher import provider
from publisher.attesting import Attest
from publisher.flavours import ImageSection, ReleaseSection
from publisher.pipeline import PROOFS, SECTIONS
from publisher.recipe import Recipe, Section
from publisher.variants import EXTRA

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """JSON Schema of a pipeline file with the options of all installed providers."""
    fields: dict[str, Any] = {}
    for name in provider.names():
        kind = provider.load(name)
        fields[name] = (
            kind.options | None,
            Field(None, description=f"Publish to {kind.traits.title}."),
        )
    targets = create_model("Targets", __base__=Section, __doc__="Where to publish.", **fields)
    proofs: dict[str, Any] = {
        name: (model | None, Field(None, description=_told(model)))
        for name, model in PROOFS.items()
    }
    file = create_model(
        "Pipeline",
        __base__=Section,
        __doc__="What to build, and where to publish it.",
        image=(ImageSection, Field(description="Name, version and tags of the image.")),
        build=(Recipe, Field(description="What goes into the disk.")),
        targets=(targets, Field(description="Where to publish: at least one cloud.")),
        **proofs,
        release=(
            ReleaseSection | None,
            Field(None, description="Who may use the images, and when."),
        ),
        attest=(Attest | None, Field(None, description=_told(Attest))),
        variants=(
            dict[str, Any],
            Field(
                {},
                description="Images that differ from the rest of the file: what is said here goes "
                "over it. Tables are merged, everything else is replaced.",
            ),
        ),
    )
    made: dict[str, Any] = _without_null(file.model_json_schema(by_alias=True))
    made["properties"]["variants"]["additionalProperties"] = _variant(made)
    made["$defs"]["Targets"]["minProperties"] = 1
    made["title"] = "cloud-image-publisher pipeline"
    return {"$schema": DIALECT, **made}


def _told(model: type[BaseModel]) -> str:
    """A model's docstring in one line."""
    return " ".join((model.__doc__ or "").split())


def _variant(made: dict[str, Any]) -> dict[str, Any]:
    """The schema of one of [variants]: the sections with nothing required. What it
    needs is added to the definitions."""
    own = _Loose(made["$defs"])
    sections = {name: own.loose(made["properties"][name]) for name in SECTIONS}
    definitions = made["$defs"]
    steps = definitions["Recipe"]["properties"]["steps"]
    definitions["Variant-Recipe"]["properties"][EXTRA] = {
        **steps,
        "description": "What to do after the other steps.",
    }
    targets = definitions["Variant-Targets"]["properties"]
    for name, target in targets.items():
        told = f"{target.get('description', '')} false: do not."
        targets[name] = {"anyOf": [target, {"const": False}], "description": told}
    return {
        "type": "object",
        "properties": sections,
        "additionalProperties": False,
        "description": "A variant of the image.",
    }


class _Loose:
    """Makes tables in which nothing is required, as far down as tables are merged."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions

    def loose(self, node: dict[str, Any]) -> dict[str, Any]:
        made = {key: value for key, value in node.items() if key != "default"}
        if "$ref" in made:
            name = made["$ref"].rpartition("/")[2]
            made["$ref"] = f"#/$defs/Variant-{name}"
            if f"Variant-{name}" not in self._definitions:
                self._definitions[f"Variant-{name}"] = {}
                self._definitions[f"Variant-{name}"] |= self.loose(self._definitions[name])
        if "properties" in made:
            made.pop("required", None)
            made["properties"] = {k: self.loose(v) for k, v in made["properties"].items()}
        if "anyOf" in made:
            made["anyOf"] = [self.loose(choice) for choice in made["anyOf"]]
        return made


def _without_null(node: Any) -> Any:
    """TOML has no null: an option is given or left out."""
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {
        key: _without_null(value)
        for key, value in node.items()
        if not (key == "default" and value is None)
    }
    choices = plain.get("anyOf")
    if isinstance(choices, list):
        kept = [choice for choice in choices if choice != {"type": "null"}]
        if len(kept) == 1:
            del plain["anyOf"]
            plain = {**kept[0], **plain}
        else:
            plain["anyOf"] = kept
    return plain
