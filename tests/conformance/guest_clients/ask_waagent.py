"""waagent's protocols: ask_waagent.py FACTS prints JSON as its last line.

FACTS is a JSON file: `ovf` the path of an ovf-env.xml, `home` a directory for
what waagent keeps under /var/lib/waagent.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def module(name: str) -> Any:
    return importlib.import_module(f"azurelinuxagent.common.{name}")


def main() -> None:
    facts = json.loads(Path(sys.argv[1]).read_text())
    module("conf").get_lib_dir = lambda *_args: facts["home"]
    ovf = module("protocol.ovfenv").OvfEnv(Path(facts["ovf"]).read_text())
    protocol = module("protocol.wire").WireProtocol("168.63.129.16")
    protocol.detect()
    machine = protocol.get_vminfo()
    restapi = module("protocol.restapi")
    begins = restapi.ProvisionStatus("NotReady", "Provisioning", "Starting")
    protocol.report_provision_status(begins)
    ends = restapi.ProvisionStatus("Ready")
    ends.properties.certificateThumbprint = "AB12"
    protocol.report_provision_status(ends)
    protocol.report_vm_status(restapi.VMStatus("Ready", "Guest Agent is running"))
    client = module("protocol.imds").ImdsClient
    try:
        imds = client()
    except TypeError:  # before 2.9 it falls back to the wire server
        imds = client("168.63.129.16")
    good, fault = imds.validate()
    told = {
        "user": ovf.username,
        "hostname": ovf.hostname,
        "keys": [value for _path, _fingerprint, value in ovf.ssh_pubkeys],
        "machine": machine.vmName,
        "metadata": fault or good,
        "vm": imds.get_compute().vmId,
        "private keys": len(list(Path(facts["home"]).glob("*.prv"))),
        "host": protocol.client.get_host_plugin().get_health(),
    }
    print(json.dumps(told))  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
