"""The steps of one image, drawn from its source into every cloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publisher.model import Audience, Spec
from publisher.step import ORIGINS, Step, step_key

if TYPE_CHECKING:
    from publisher.flavours import Proofs
    from publisher.provider import Options


@dataclass(frozen=True, slots=True)
class Target:
    """One cloud of a plan: where to, with which options, opened to whom.

    `required` are the regions without which nothing is released. `realm` sets
    the local stand-in's outcomes apart from the real cloud's. `boots` is as in Traits.
    """

    provider: str
    options: Options
    audience: Audience
    required: tuple[str, ...]
    realm: str = ""
    boots: bool = False

    @property
    def optional(self) -> tuple[str, ...]:
        return tuple(r for r in self.options.locations() if r not in self.required)


class Drawing:
    """Steps in the making."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}

    def barrier(self, ready: Sequence[str]) -> str:
        """The one step that all images wait for before any is opened."""
        key = step_key("barrier", {}, [])
        self.steps["barrier"] = Step("barrier", "barrier", "release", {}, (), key, tuple(ready))
        return "barrier"


class Line:
    """The steps of one image, from its source into every cloud."""

    def __init__(
        self,
        drawing: Drawing,
        spec: Spec,
        targets: Sequence[Target],
        label: str = "",
        origins: str = "",
    ) -> None:
        self._drawing = drawing
        self._spec = spec
        self._targets = targets
        self._label = label
        self._origins = {ORIGINS: origins} if origins else {}
        self._proofs: list[str] = []
        self._rehearsals: dict[str, str] = {}
        self._verified: list[tuple[Target, str, str, bool]] = []

    def add(
        self,
        name: str,
        kind: str,
        lane: str,
        inputs: Mapping[str, Any],
        needs: Sequence[str] = (),
        after: Sequence[str] = (),
        *,
        required: bool = True,
        local: Mapping[str, str] | None = None,
    ) -> str:
        prefix = f"{self._label}." if self._label else ""
        steps, identity = self._drawing.steps, f"{prefix}{name}"
        steps[identity] = Step(
            identity,
            kind,
            f"{prefix}{lane}",
            inputs,
            tuple(needs),
            step_key(kind, inputs, [steps[need].key for need in needs]),
            tuple(after),
            required,
            {**(local or {}), **self._origins},
            self._label,
        )
        return identity

    def _inputs(self, target: Target) -> dict[str, Any]:
        return {
            "provider": target.provider,
            "options": target.options.model_dump(mode="json", by_alias=True),
            "spec": self._spec.to_json(),
            **({"realm": target.realm} if target.realm else {}),
        }

    def checks(self) -> list[str]:
        """What is asked of every cloud before anything is made."""
        return [
            self.add(
                f"{target.provider}.check",
                "check",
                target.provider,
                {**self._inputs(target), "regions": list(target.options.locations())},
                required=bool(target.required),
            )
            for target in self._targets
        ]

    def proofs(self, disk: str, wanted: Proofs) -> None:
        """What is shown of the disk before any upload: first what is quick to see."""
        must = any(target.required for target in self._targets)
        spec = self._spec.to_json()
        clouds = {
            target.provider: target.options.model_dump(mode="json", by_alias=True)
            for target in self._targets
            if target.boots
        }

        def add(kind: str, inputs: Mapping[str, Any]) -> None:
            self._proofs.append(self.add(kind, kind, "proof", inputs, [disk], required=must))

        if wanted.lint.enabled and clouds:
            rules = wanted.lint.model_dump(mode="json")
            add("lint", {"clouds": clouds, "lint": rules, "spec": spec})
        if wanted.secrets.enabled:
            public = any(target.audience.kind == "public" for target in self._targets)
            add("secrets", {"public": public, "secrets": wanted.secrets.model_dump(mode="json")})
        add("inventory", {"spec": spec})
        for target in self._targets:
            if not (wanted.rehearse.enabled and target.boots):
                continue
            name = target.provider
            asked = [check for check in wanted.rehearse.checks if check.concerns(name)]
            settings = wanted.rehearse.model_copy(update={"checks": tuple(asked)})
            self._rehearsals[name] = self.add(
                f"{name}.rehearse",
                "rehearse",
                name,
                {
                    "provider": name,
                    "options": clouds[name],
                    "rehearse": settings.model_dump(mode="json"),
                    "spec": spec,
                },
                [disk],
                list(self._proofs),
                required=bool(target.required),
            )

    def copies(self, disk: str) -> list[str]:
        """upload ▶ register ▶ copy ▶ verify in every cloud; returns what must be
        ready before anything is opened."""
        prefix = f"{self._label}." if self._label else ""
        ready: list[str] = []
        for target in self._targets:
            lane = target.provider
            inputs = self._inputs(target)
            must = bool(target.required)
            # no byte of the disk leaves before it is proved for every cloud
            before = [f"{prefix}{lane}.check", *self._proofs, *self._rehearsals.values()]
            upload = self.add(
                f"{lane}.upload", "upload", lane, inputs, [disk], before, required=must
            )
            image = self.add(
                f"{lane}.register", "register", lane, inputs, [disk, upload], required=must
            )
            for suffix, regions, required in (
                ("", target.required, True),
                (".optional", target.optional, False),
            ):
                if not regions:
                    continue
                group = {**inputs, "regions": list(regions)}
                copy = self.add(
                    f"{lane}.copy{suffix}", "copy", lane, group, [disk, image], required=required
                )
                verify = self.add(
                    f"{lane}.verify{suffix}", "verify", lane, group, [disk, copy], required=required
                )
                if required:
                    ready.append(verify)
                self._verified.append((target, copy, verify, required))
        return ready

    def releases(self, barrier: str) -> None:
        for target, copy, verify, required in self._verified:
            lane = target.provider
            self.add(
                f"{lane}.release{'' if required else '.optional'}",
                "release",
                lane,
                {**self._inputs(target), "audience": target.audience.to_json()},
                [copy, verify],
                [barrier],
                required=required,
            )
