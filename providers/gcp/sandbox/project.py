"""The project itself, its quotas, and its zones."""

from __future__ import annotations

from providers.gcp.sandbox.compute import ZONES, Collection
from providers.gcp.sandbox.web import Answer, Request, Router, not_found

QUOTAS = {"IMAGES": 2000.0, "SNAPSHOTS": 5000.0}


class Project(Collection):
    def routes(self, router: Router) -> None:
        self.add(router, "GET", "", "projects.get", self._get)
        self.add(router, "GET", "/zones", "zones.list", self._zones)
        self.add(router, "GET", "/zones/{name}", "zones.get", self._zone)

    def _get(self, request: Request) -> Answer:
        del request
        images = float(sum(1 for _ in self.store.images.items()))
        quotas = [
            {"metric": name, "limit": limit, "usage": images if name == "IMAGES" else 0.0}
            for name, limit in QUOTAS.items()
        ]
        return Answer(
            {
                "kind": "compute#project",
                "id": "100000000001",
                "name": self.project,
                "selfLink": self.link("").rstrip("/"),
                "quotas": quotas,
            }
        )

    def _describe(self, name: str) -> dict[str, str]:
        return {
            "kind": "compute#zone",
            "id": str(2000 + ZONES.index(name)),
            "name": name,
            "status": "UP",
            "selfLink": self.link(f"zones/{name}"),
        }

    def _zones(self, request: Request) -> Answer:
        return self.page(request, "zone", [self._describe(name) for name in ZONES])

    def _zone(self, request: Request) -> Answer:
        name = request.arguments["name"]
        if name not in ZONES:
            raise not_found(f"The resource 'projects/{self.project}/zones/{name}'")
        return Answer(self._describe(name))
