"""The provisioning CD: ovf-env.xml, what the owner gave to the machine."""

from __future__ import annotations

import base64
from xml.sax.saxutils import escape

from publisher.proof.guest import Instance

NAME = "ovf-env.xml"


def ovf_env(instance: Instance) -> bytes:
    """`user_data` is the custom data; the key is given as a value, without a certificate."""
    custom = base64.b64encode(instance.user_data.encode()).decode()
    custom_data = f"<wa:CustomData>{custom}</wa:CustomData>" if custom else ""
    user = escape(instance.user)
    return f"""<?xml version="1.0" encoding="utf-8"?>
<ns0:Environment xmlns:ns0="http://schemas.dmtf.org/ovf/environment/1"
 xmlns:wa="http://schemas.microsoft.com/windowsazure"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <wa:LinuxProvisioningConfigurationSet>
      <wa:ConfigurationSetType>LinuxProvisioningConfiguration</wa:ConfigurationSetType>
      <wa:HostName>{escape(instance.hostname)}</wa:HostName>
      <wa:UserName>{user}</wa:UserName>
      <wa:DisableSshPasswordAuthentication>true</wa:DisableSshPasswordAuthentication>
      <wa:SSH>
        <wa:PublicKeys>
          <wa:PublicKey>
            <wa:Fingerprint></wa:Fingerprint>
            <wa:Path>/home/{user}/.ssh/authorized_keys</wa:Path>
            <wa:Value>{escape(instance.public_key.strip())}</wa:Value>
          </wa:PublicKey>
        </wa:PublicKeys>
      </wa:SSH>
      {custom_data}
    </wa:LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <wa:PlatformSettings>
      <wa:KmsServerHostname>azkms.core.windows.net</wa:KmsServerHostname>
      <wa:ProvisionGuestAgent>true</wa:ProvisionGuestAgent>
      <wa:GuestAgentPackageName xsi:nil="true"/>
      <wa:RetainWindowsPEPassInUnattend>true</wa:RetainWindowsPEPassInUnattend>
      <wa:RetainOfflineServicingPassInUnattend>true</wa:RetainOfflineServicingPassInUnattend>
      <wa:PreprovisionedVm>false</wa:PreprovisionedVm>
    </wa:PlatformSettings>
  </wa:PlatformSettingsSection>
</ns0:Environment>
""".encode()
