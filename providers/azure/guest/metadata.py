"""Azure's services for one instance: instance metadata, wire server, host plugin, CD."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from providers.azure.guest import media
from providers.azure.guest.hostplugin import HostPlugin
from providers.azure.guest.identity import Identity
from providers.azure.guest.imds import Imds
from providers.azure.guest.machine import IMDS, WIRESERVER
from providers.azure.guest.wireserver import WireServer
from providers.azure.options import AzureOptions
from publisher.model import MIB
from publisher.proof.guest import Instance, InstanceService, Look

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BODY_MOST = 8 * MIB
"""An agent's logs and status blobs are smaller."""


class Metadata(InstanceService):
    """The services at the addresses of both, and the CD."""

    def __init__(self, instance: Instance, look: Look, options: AzureOptions) -> None:
        identity = Identity.of(instance.seed, instance.hostname, generation_1=look.boot == "bios")
        super().__init__(identity)
        diary = self._diary
        location = next(iter(options.locations()), "westeurope")
        self._media = media.ovf_env(instance)
        self._names = {instance.hostname: instance.address}
        self._endpoints = {
            (IMDS, 80): _application(Imds(instance, identity, look, location, diary).answer),
            (WIRESERVER, 80): _application(WireServer(instance, identity, location, diary).answer),
            (WIRESERVER, 32526): _application(
                HostPlugin(instance, identity, location, diary).answer
            ),
        }

    @property
    def endpoints(self) -> Mapping[tuple[str, int], WSGIApplication]:
        return self._endpoints

    @property
    def names(self) -> Mapping[str, str]:
        return self._names

    @property
    def cdrom(self) -> Mapping[str, bytes]:
        return {media.NAME: self._media}


def _application(answer: Callable[[Request], Response]) -> WSGIApplication:
    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        request.max_content_length = BODY_MOST
        try:
            response: WSGIApplication = answer(request)
        except HTTPException as error:
            response = error
        return response(environ, start_response)

    return serve
