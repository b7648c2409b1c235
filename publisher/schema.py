"""JSON Schema of pipeline.toml, so that editors complete and check it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, create_model

from publisher import provider
from publisher.pipeline import ImageSection, ReleaseSection
from publisher.recipe import Recipe, Section

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
    file = create_model(
        "Pipeline",
        __base__=Section,
        __doc__="What to build, and where to publish it.",
        image=(ImageSection, Field(description="Name, version and tags of the image.")),
        build=(Recipe, Field(description="What goes into the disk.")),
        targets=(targets, Field(description="Where to publish: at least one cloud.")),
        release=(
            ReleaseSection | None,
            Field(None, description="Who may use the images, and when."),
        ),
    )
    made: dict[str, Any] = _without_null(file.model_json_schema(by_alias=True))
    made["$defs"]["Targets"]["minProperties"] = 1
    made["title"] = "cloud-image-publisher pipeline"
    return {"$schema": DIALECT, **made}


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
