"""Azure's services as guests ask them: instance metadata, wire server, host plugin, CD."""

from __future__ import annotations

import base64
import datetime
import json
from xml.etree import ElementTree

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from providers.azure.guest.identity import Identity
from publisher.model import Spec
from publisher.proof.guest import Service
from tests.unit.guest_world import KEY, SEED, USER_DATA, Guest, service

TRUE = {"Metadata": "true"}
WIRE = {"x-ms-version": "2012-11-30", "x-ms-agent-name": "WALinuxAgent"}
NEWEST = "2025-04-07"
ME = Identity.of(SEED, "rehearsal", generation_1=False)
HOST = {
    "x-ms-version": "2015-09-01",
    "x-ms-containerid": ME.container,
    "x-ms-host-config-name": f"{ME.deployment}.0.{ME.deployment}.0._rehearsal.1.xml",
}


@pytest.fixture
def azure() -> Service:
    return service("azure")


@pytest.fixture
def imds(azure: Service) -> Guest:
    return Guest(azure, "169.254.169.254")


@pytest.fixture
def wire(azure: Service) -> Guest:
    return Guest(azure, "168.63.129.16")


@pytest.fixture
def host(azure: Service) -> Guest:
    return Guest(azure, "168.63.129.16", 32526)


# -- instance metadata


def instance(imds: Guest, query: str = "", below: str = "") -> str:
    path = f"/metadata/instance{below}?api-version={NEWEST}{query}"
    response = imds.ask("GET", path, TRUE)
    assert response.status_code == 200, response.text
    return response.text


def test_the_instance_is_told_as_the_owner_ordered_it(imds: Guest) -> None:
    told = json.loads(instance(imds))
    compute = told["compute"]
    assert compute["vmId"] == imds.service.instance_id
    assert compute["osProfile"] == {
        "adminUsername": "admin1",
        "computerName": "rehearsal",
        "disablePasswordAuthentication": "true",
    }
    assert compute["publicKeys"][0]["keyData"].strip() == KEY
    [card] = told["network"]["interface"]
    assert card["macAddress"] == imds.service.mac.replace(":", "").upper()
    assert card["ipv4"]["ipAddress"][0]["privateIpAddress"] == "10.77.0.15"
    assert imds.kinds() == {"key"}


def test_all_values_are_text(imds: Guest) -> None:
    def leaves(node: object) -> list[object]:
        if isinstance(node, dict):
            return [leaf for child in node.values() for leaf in leaves(child)]
        if isinstance(node, list):
            return [leaf for child in node for leaf in leaves(child)]
        return [node]

    assert all(isinstance(leaf, str) for leaf in leaves(json.loads(instance(imds))))


@pytest.mark.parametrize("headers", [{}, {"Metadata": "false"}, {"Metadata": ""}])
def test_the_header_is_needed(imds: Guest, headers: dict[str, str]) -> None:
    response = imds.ask("GET", f"/metadata/instance?api-version={NEWEST}", headers)
    assert response.status_code == 400
    assert imds.kinds() == {"refused"}


def test_a_proxys_requests_are_refused(imds: Guest) -> None:
    headers = {**TRUE, "X-Forwarded-For": "10.0.0.1"}
    path = f"/metadata/instance?api-version={NEWEST}"
    assert imds.ask("GET", path, headers).status_code == 400


@pytest.mark.parametrize("query", ["", "?api-version=2021-08-02", "?api-version=latest"])
def test_a_version_must_be_one_that_exists(imds: Guest, query: str) -> None:
    response = imds.ask("GET", f"/metadata/instance{query}", TRUE)
    assert response.status_code == 400
    assert json.loads(response.text)["newest-versions"][0] == NEWEST


def test_the_versions_need_no_version(imds: Guest) -> None:
    versions = json.loads(imds.ask("GET", "/metadata/versions", TRUE).text)["apiVersions"]
    assert versions[0] == "2017-03-01"
    assert {"2019-06-01", "2021-08-01", NEWEST} <= set(versions)


def test_older_versions_know_less(imds: Guest) -> None:
    def compute(version: str) -> dict[str, object]:
        path = f"/metadata/instance/compute?api-version={version}"
        found = json.loads(imds.ask("GET", path, TRUE).text)
        assert isinstance(found, dict)
        return found

    assert not {"osProfile", "publicKeys"} & set(compute("2017-12-01"))
    assert "publicKeys" in compute("2019-06-01")
    assert "disablePasswordAuthentication" not in str(compute("2020-07-15")["osProfile"])


def test_cloud_init_is_told_of_custom_data(imds: Guest) -> None:
    told = json.loads(instance(imds, "&extended=true"))
    assert told["extended"]["compute"] == {"hasCustomData": True, "ppsType": "None"}
    assert "extended" not in json.loads(instance(imds))


def test_leaves_are_text_only(imds: Guest) -> None:
    assert instance(imds, "&format=text", "/compute/name") == "rehearsal"
    assert instance(imds, "&format=text", "/network/interface/0") == "ipv4/\nipv6/\nmacAddress"
    path = f"/metadata/instance/compute/name?api-version={NEWEST}"
    assert imds.ask("GET", path, TRUE).status_code == 400
    assert imds.ask("GET", path.replace("name", "none"), TRUE).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_instance_metadata_is_only_read(imds: Guest, method: str) -> None:
    path = f"/metadata/instance?api-version={NEWEST}"
    assert imds.ask(method, path, TRUE).status_code == 405


def test_a_parameter_is_given_once(imds: Guest) -> None:
    path = f"/metadata/instance?api-version={NEWEST}&api-version={NEWEST}"
    assert imds.ask("GET", path, TRUE).status_code == 400


def test_there_is_no_managed_identity(imds: Guest) -> None:
    path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault"
    response = imds.ask("GET", path, TRUE)
    assert response.status_code == 400
    assert "access_token" not in response.text


def test_attested_data_is_not_signed_by_microsoft(imds: Guest) -> None:
    path = f"/metadata/attested/document?api-version={NEWEST}&nonce=1234567890"
    told = json.loads(imds.ask("GET", path, TRUE).text)
    signed = base64.b64decode(told["signature"])
    assert b'"nonce": "1234567890"' in signed
    [certificate] = pkcs7.load_der_pkcs7_certificates(signed)
    assert "not Microsoft" in certificate.subject.rfc4514_string()


def test_no_event_is_scheduled(imds: Guest) -> None:
    path = "/metadata/scheduledevents?api-version=2020-07-01"
    assert json.loads(imds.ask("GET", path, TRUE).text)["Events"] == []
    assert imds.ask("GET", path.replace("2020-07-01", "2020-07-02"), TRUE).status_code == 400
    for other in ("reprovisiondata", "loadbalancer"):
        assert imds.ask("GET", f"/metadata/{other}?api-version={NEWEST}", TRUE).status_code == 404


# -- wire server


def goal_state(wire: Guest) -> ElementTree.Element:
    return ElementTree.fromstring(wire.ask("GET", "/machine/?comp=goalstate", WIRE).text)


def report(state: str = "Ready", container: str = ME.container, detail: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><Health>'
        "<GoalStateIncarnation>1</GoalStateIncarnation>"
        f"<Container><ContainerId>{container}</ContainerId><RoleInstanceList><Role>"
        f"<InstanceId>{ME.role_instance}</InstanceId><Health><State>{state}</State>{detail}"
        "</Health></Role></RoleInstanceList></Container></Health>"
    )


def test_the_wire_server_offers_what_agents_speak(wire: Guest) -> None:
    versions = ElementTree.fromstring(wire.ask("GET", "/?comp=versions").text)
    supported = [version.text for version in versions.findall("Supported/Version")]
    assert "2012-11-30" in supported


def test_a_wire_protocol_must_be_named(wire: Guest) -> None:
    assert wire.ask("GET", "/machine/?comp=goalstate").status_code == 400
    odd = {"x-ms-version": "1999-01-01"}
    assert wire.ask("GET", "/machine/?comp=goalstate", odd).status_code == 400
    assert wire.kinds() == {"refused"}


def test_all_that_the_goal_state_links_to_is_there(wire: Guest) -> None:
    found = goal_state(wire)
    assert found.findtext("Incarnation") == "1"
    assert found.findtext("Container/ContainerId") == ME.container
    configuration = found.find("Container/RoleInstanceList/RoleInstance/Configuration")
    assert configuration is not None
    for name in ("HostingEnvironmentConfig", "SharedConfig", "ExtensionsConfig"):
        url = configuration.findtext(name, "")
        path = url.removeprefix("http://168.63.129.16:80")
        assert path != url
        root = ElementTree.fromstring(wire.ask("GET", path, WIRE).text)
        assert root.get("goalStateIncarnation") == "1"


def test_an_outdated_goal_state_is_gone(wire: Guest) -> None:
    config = "comp=config&type=sharedConfig"
    here = f"/machine/{ME.container}/{ME.role_instance}"
    assert wire.ask("GET", f"{here}?{config}&incarnation=1", WIRE).status_code == 200
    assert wire.ask("GET", f"{here}?{config}&incarnation=2", WIRE).status_code == 410
    assert wire.ask("GET", f"/machine/x/y?{config}&incarnation=1", WIRE).status_code == 410
    assert wire.ask("GET", f"{here}?comp=config&type=x&incarnation=1", WIRE).status_code == 404


def test_ready_is_heard(wire: Guest) -> None:
    for path in ("/machine?comp=health", "/machine/?comp=health"):
        assert wire.ask("POST", path, WIRE, report()).status_code == 200
    assert wire.told("ready") == ["Ready", "Ready"]


def test_not_ready_is_heard_with_its_reason(wire: Guest) -> None:
    detail = (
        "<Details><SubStatus>ProvisioningFailed</SubStatus>"
        "<Description>result=error|reason=no key</Description></Details>"
    )
    body = report("NotReady", detail=detail)
    assert wire.ask("POST", "/machine?comp=health", WIRE, body).status_code == 200
    assert wire.told("not-ready") == ["NotReady: ProvisioningFailed: result=error|reason=no key"]
    assert not wire.told("ready")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (report(container="other"), 410),
        (report("Perhaps"), 400),
        ("<Health>", 400),
        ("", 400),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + report(), 400),
    ],
)
def test_a_health_report_must_be_one(wire: Guest, body: str, status: int) -> None:
    assert wire.ask("POST", "/machine?comp=health", WIRE, body).status_code == status
    assert wire.kinds() == {"refused"}


def test_role_properties_are_accepted(wire: Guest) -> None:
    body = (
        f"<RoleProperties><Container><ContainerId>{ME.container}</ContainerId><RoleInstances>"
        f"<RoleInstance><Id>{ME.role_instance}</Id><Properties>"
        '<Property name="CertificateThumbprint" value="AB12" /></Properties></RoleInstance>'
        "</RoleInstances></Container></RoleProperties>"
    )
    assert wire.ask("POST", "/machine?comp=roleProperties", WIRE, body).status_code == 202
    assert wire.told("agent") == ["role property CertificateThumbprint = AB12"]
    stale = body.replace(ME.container, "other")
    assert wire.ask("POST", "/machine?comp=roleProperties", WIRE, stale).status_code == 410


def test_telemetry_is_heard(wire: Guest) -> None:
    params = (
        '<Param Name="Operation" Value="Provision" T="mt:wstr" />'
        '<Param Name="OperationSuccess" Value="False" T="mt:bool" />'
        '<Param Name="Message" Value="no &lt;CD&gt;" T="mt:wstr" />'
    )
    body = (
        '<?xml version="1.0"?><TelemetryData version="1.0"><Provider id="x">'
        f'<Event id="1"><![CDATA[{params}]]></Event></Provider></TelemetryData>'
    )
    assert wire.ask("POST", "/machine?comp=telemetrydata", WIRE, body).status_code == 200
    assert wire.told("agent") == ["Provision failed: no <CD>"]


def test_the_health_service_and_nothing_else_is_there(wire: Guest) -> None:
    assert wire.ask("POST", "/HealthService", data="{}").status_code == 200
    assert wire.ask("GET", "/other").status_code == 404
    assert wire.ask("DELETE", "/machine?comp=health", WIRE).status_code == 405


def transport() -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """The agent's own key, with which the goal state's certificates are enveloped."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "LinuxTransport")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1).not_valid_before(now)
    after = now + datetime.timedelta(days=1)
    return key, builder.not_valid_after(after).sign(key, hashes.SHA256())


def test_certificates_open_with_the_agents_key(wire: Guest) -> None:
    key, certificate = transport()
    sent = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    path = f"/machine/{ME.container}/{ME.role_instance}?comp=certificates&incarnation=1"
    assert wire.ask("GET", path, WIRE).status_code == 400
    headers = {**WIRE, "x-ms-guest-agent-public-x509-cert": sent}
    odd = {**headers, "x-ms-cipher-name": "ROT13"}
    assert wire.ask("GET", path, odd).status_code == 400
    headers["x-ms-cipher-name"] = "DES_EDE3_CBC"
    document = ElementTree.fromstring(wire.ask("GET", path, headers).text)
    assert document.findtext("Format") == "Pkcs7BlobWithPfxContents"
    enveloped = base64.b64decode(document.findtext("Data", ""))
    pfx = pkcs7.pkcs7_decrypt_der(enveloped, certificate, key, [])
    found, theirs, _ = pkcs12.load_key_and_certificates(pfx, None)
    assert isinstance(found, rsa.RSAPrivateKey)
    assert theirs is not None
    assert "not Azure" in theirs.subject.rfc4514_string()


# -- host plugin


def test_the_host_offers_its_version_and_health(host: Guest) -> None:
    assert json.loads(host.ask("GET", "/versions").text) == ["2015-09-01"]
    assert host.ask("GET", "/health").status_code == 200
    assert host.ask("GET", "/other").status_code == 404


def test_vm_settings_come_with_an_etag(host: Guest) -> None:
    response = host.ask("GET", "/vmSettings", HOST)
    settings = json.loads(response.text)
    assert settings["extensionGoalStatesSource"] == "Fabric"
    assert settings["inVMMetadata"]["vmId"] == host.service.instance_id
    known = {**HOST, "If-None-Match": response.headers["ETag"]}
    assert host.ask("GET", "/vmSettings", known).status_code == 304


@pytest.mark.parametrize("header", HOST)
def test_the_host_wants_to_know_who_asks(host: Guest, header: str) -> None:
    for method, path in (("GET", "/vmSettings"), ("PUT", "/status")):
        response = host.ask(method, path, {**HOST, header: "other"}, "{}")
        assert response.status_code == 400


def test_the_agents_status_is_heard(host: Guest) -> None:
    status = {
        "aggregateStatus": {
            "guestAgentStatus": {
                "version": "2.15.0.1",
                "status": "Ready",
                "formattedMessage": {"lang": "en-US", "message": "Guest Agent is running"},
            }
        }
    }
    content = base64.b64encode(json.dumps(status).encode()).decode()
    body = json.dumps({"requestUri": "https://x", "headers": [], "content": content})
    assert host.ask("PUT", "/status", HOST, body).status_code == 200
    assert host.told("agent") == ["status: 2.15.0.1 Ready Guest Agent is running"]
    assert not host.told("ready")


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"requestUri": "x", "content": "%"}'])
def test_a_status_must_be_one(host: Guest, body: str) -> None:
    assert host.ask("PUT", "/status", HOST, body).status_code == 400


def test_logs_are_taken_and_artifacts_are_not_there(host: Guest) -> None:
    assert host.ask("PUT", "/vmAgentLog", HOST, b"zip").status_code == 200
    assert host.ask("GET", "/extensionArtifact", HOST).status_code == 404
    assert host.ask("PUT", "/status", HOST, b"x" * (9 * 1024**2)).status_code == 413


# -- the CD


def test_the_cd_brings_what_the_owner_gave() -> None:
    odd = service("azure", Spec("demo", "1", firmware="bios"), hostname="a&b", user="o'admin")
    root = ElementTree.fromstring(odd.cdrom["ovf-env.xml"])
    space = {"wa": "http://schemas.microsoft.com/windowsazure"}
    given = root.find("wa:ProvisioningSection/wa:LinuxProvisioningConfigurationSet", space)
    assert given is not None
    assert given.findtext("wa:HostName", namespaces=space) == "a&b"
    assert given.findtext("wa:UserName", namespaces=space) == "o'admin"
    assert given.findtext("wa:SSH/wa:PublicKeys/wa:PublicKey/wa:Value", "", space) == KEY
    custom = given.findtext("wa:CustomData", "", space)
    assert base64.b64decode(custom).decode() == USER_DATA


def test_without_custom_data_the_cd_has_none() -> None:
    assert b"CustomData" not in service("azure", user_data="").cdrom["ovf-env.xml"]
