"""The documents of the wire server's goal state, in the shapes that waagent reads."""

from __future__ import annotations

import datetime
import json
from xml.sax.saxutils import escape

from providers.azure.guest.identity import SUBSCRIPTION, Identity
from providers.azure.guest.machine import WIRESERVER
from publisher.proof.guest import Instance

INCARNATION = "1"
PREFERRED = "2015-04-05"
SUPPORTED = (
    PREFERRED, "2012-11-30", "2012-09-15", "2012-05-15", "2011-12-31", "2011-10-15",
    "2011-08-31", "2011-04-07", "2010-12-15", "2010-28-10",
)  # fmt: skip
HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'
_NONE = "00000000-0000-0000-0000-000000000000"
ZERO = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)


def versions() -> str:
    supported = "".join(f"<Version>{version}</Version>" for version in SUPPORTED)
    return (
        f"{HEAD}<Versions><Preferred><Version>{PREFERRED}</Version></Preferred>"
        f"<Supported>{supported}</Supported></Versions>"
    )


def goal_state(identity: Identity) -> str:
    base = f"http://{WIRESERVER}:80/machine/{identity.container}/{escape(identity.role_instance)}"

    def config(kind: str) -> str:
        return f"{base}?comp=config&amp;type={kind}&amp;incarnation={INCARNATION}"

    return f"""{HEAD}<GoalState xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:noNamespaceSchemaLocation="goalstate10.xsd">
  <Version>2012-11-30</Version>
  <Incarnation>{INCARNATION}</Incarnation>
  <Machine>
    <ExpectedState>Started</ExpectedState>
    <StopRolesDeadlineHint>300000</StopRolesDeadlineHint>
    <LBProbePorts><Port>16001</Port></LBProbePorts>
    <ExpectHealthReport>FALSE</ExpectHealthReport>
  </Machine>
  <Container>
    <ContainerId>{identity.container}</ContainerId>
    <RoleInstanceList>
      <RoleInstance>
        <InstanceId>{escape(identity.role_instance)}</InstanceId>
        <State>Started</State>
        <Configuration>
          <HostingEnvironmentConfig>{config("hostingEnvironmentConfig")}</HostingEnvironmentConfig>
          <SharedConfig>{config("sharedConfig")}</SharedConfig>
          <ExtensionsConfig>{config("extensionsConfig")}</ExtensionsConfig>
          <FullConfig>{config("fullConfig")}</FullConfig>
          <Certificates>{base}?comp=certificates&amp;incarnation={INCARNATION}</Certificates>
          <ConfigName>{config_name(identity)}</ConfigName>
        </Configuration>
      </RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>
"""


def config_name(identity: Identity) -> str:
    role = identity.role_instance.partition(".")[2]
    return escape(f"{identity.deployment}.0.{identity.deployment}.0.{role}.1.xml")


def _deployment(identity: Identity) -> str:
    return f"""<Deployment name="{identity.deployment}" guid="{{{_NONE}}}" incarnation="0"
    isNonCancellableTopologyChangeEnabled="false">
    <Service name="rehearsal" guid="{{{_NONE}}}" />
    <ServiceInstance name="{identity.deployment}.0" guid="{{{_NONE}}}" />
  </Deployment>"""


def hosting_environment(instance: Instance, identity: Identity) -> str:
    name = escape(instance.hostname.partition(".")[0])
    return f"""{HEAD}<HostingEnvironmentConfig version="1.0.0.0"
 goalStateIncarnation="{INCARNATION}">
  <StoredCertificates></StoredCertificates>
  {_deployment(identity)}
  <Incarnation number="{INCARNATION}" instance="_{name}" guid="{{{identity.vm_id}}}" />
  <Role guid="{{{_NONE}}}" name="_{name}" hostingEnvironmentVersion="1" software=""
   softwareType="ApplicationPackage" entryPoint="" parameters="" settleTimeSeconds="0" />
  <HostingEnvironmentSettings name="full" runtime="">
    <CAS mode="full" />
    <PrivilegeLevel mode="max" />
  </HostingEnvironmentSettings>
  <ApplicationSettings></ApplicationSettings>
  <ResourceReferences></ResourceReferences>
</HostingEnvironmentConfig>
"""


def shared(instance: Instance, identity: Identity) -> str:
    name = escape(instance.hostname.partition(".")[0])
    return f"""{HEAD}<SharedConfig version="1.0.0.0" goalStateIncarnation="{INCARNATION}">
  {_deployment(identity)}
  <Incarnation number="{INCARNATION}" instance="_{name}" guid="{{{identity.vm_id}}}" />
  <Role guid="{{{_NONE}}}" name="_{name}" settleTimeSeconds="0" />
  <LoadBalancerSettings timeoutSeconds="0" waitLoadBalancerProbeCount="8">
    <Probes><Probe name="_{name}" /></Probes>
  </LoadBalancerSettings>
  <OutputEndpoints></OutputEndpoints>
  <Instances>
    <Instance id="_{name}" address="{instance.address}">
      <FaultDomains randomId="0" updateId="0" updateCount="0" />
    </Instance>
  </Instances>
</SharedConfig>
"""


def extensions(instance: Instance, identity: Identity, location: str) -> str:
    """No extension, and no newer agent to go to."""
    activity = f'activityId="{identity.deployment}" correlationId="{identity.deployment}"'
    return f"""{HEAD}<Extensions version="1.0.0.0" goalStateIncarnation="{INCARNATION}">
  <GuestAgentExtension xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
    <GAFamilies></GAFamilies>
    <Location>{escape(location)}</Location>
  </GuestAgentExtension>
  <Plugins></Plugins>
  <PluginSettings></PluginSettings>
  <StatusUploadBlob statusBlobType="BlockBlob">{escape(status_blob(instance))}</StatusUploadBlob>
  <InVMGoalStateMetaData inSvdSeqNo="0" createdOnTicks="{ticks()}" {activity} />
</Extensions>
"""


def vm_settings(instance: Instance, identity: Identity, location: str, created: int) -> str:
    """The host's view of the same goal state; "Fabric" sends the agent to the wire server."""
    return json.dumps(
        {
            "hostGAPluginVersion": "1.0.8.159",
            "vmSettingsSchemaVersion": "0.0",
            "activityId": identity.deployment,
            "correlationId": identity.deployment,
            "inSvdSeqNo": 0,
            "extensionsLastModifiedTickCount": created,
            "extensionGoalStatesSource": "Fabric",
            "onHold": False,
            "statusUploadBlob": {"statusBlobType": "BlockBlob", "value": status_blob(instance)},
            "inVMMetadata": {
                "subscriptionId": SUBSCRIPTION,
                "resourceGroupName": "rehearsal",
                "vmName": instance.hostname.partition(".")[0],
                "location": location,
                "vmId": identity.vm_id,
                "osType": "Linux",
            },
            "requiredFeatures": [],
            "gaFamilies": [],
            "extensionGoalStates": [],
        }
    )


def status_blob(instance: Instance) -> str:
    """Where the agent is told to put its status, by way of the host; it does not exist."""
    name = instance.hostname.partition(".")[0]
    return f"https://rehearsal.invalid/$system/{name}.status?sv=2018-03-28&sr=b&sp=w&sig=none"


def ticks() -> int:
    """Now, in units of 100 ns since the year 1."""
    return int((datetime.datetime.now(datetime.UTC) - ZERO).total_seconds()) * 10_000_000
