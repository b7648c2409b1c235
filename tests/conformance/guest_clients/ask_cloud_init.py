"""cloud-init's data sources: ask_cloud_init.py CLOUD FACTS prints JSON.

FACTS is a JSON file: `dmi` by the names of cloud-init's dmi module, `ovf` the path
of an ovf-env.xml, `home` a directory for what cloud-init keeps.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock


def module(name: str) -> Any:
    return importlib.import_module(f"cloudinit.{name}")


def ec2(facts: dict[str, Any]) -> dict[str, Any]:
    """Over IPv4 and over IPv6 alone."""
    source = module("sources.DataSourceEc2")
    paths = module("helpers").Paths({"cloud_dir": facts["home"], "run_dir": facts["home"]})
    told: dict[str, Any] = {}
    for urls in (source.DataSourceEc2.metadata_urls, ["http://[fd00:ec2::254]"]):
        limits = {"metadata_urls": urls, "max_wait": 20, "timeout": 10}
        ds = source.DataSourceEc2({"datasource": {"Ec2": limits}}, mock.Mock(), paths)
        got = ds.crawl_metadata()
        ds.metadata = got["meta-data"]
        ds.identity = got["dynamic"]["instance-identity"]["document"]
        told[ds.metadata_address] = {
            "platform": ds.cloud_name,
            "instance": ds.get_instance_id(),
            "keys": ds.get_public_ssh_keys(),
            "user-data": got["user-data"].decode(),
            "region": ds.region,
            "cards": list(ds.metadata["network"]["interfaces"]["macs"]),
        }
    return told


def gce(facts: dict[str, Any]) -> dict[str, Any]:
    source = module("sources.DataSourceGCE")
    given: dict[str, Any] = {"address": source.MD_V1_URL}
    if "url_params" in inspect.signature(source.read_md).parameters:
        given["url_params"] = mock.Mock(num_retries=2, sec_between_retries=1)
    got = source.read_md(**given)
    assert got["success"], got["reason"]
    source._write_host_key_to_guest_attributes("ssh-ed25519", "AAAA")
    metadata = got["meta-data"]
    return {
        "instance": metadata["instance-id"],
        "zone": metadata["availability-zone"],
        "hostname": metadata["local-hostname"],
        "keys": source._parse_public_keys(metadata["public-keys-data"], "debian"),
        "user-data": got["user-data"].decode(),
    }


def azure(facts: dict[str, Any]) -> dict[str, Any]:
    source = module("sources.DataSourceAzure")
    helper = module("sources.helpers.azure")
    given, user_data, settings = source.read_azure_ovf(Path(facts["ovf"]).read_text())
    try:
        metadata = module("sources.azure.imds").fetch_metadata_with_api_fallback(
            retry_deadline=float("inf")
        )
    except ModuleNotFoundError:
        metadata = source.get_metadata_from_imds(
            retries=2, md_type=source.MetadataType.ALL, api_version="2021-08-01"
        )
    fabric: dict[str, Any] = {"endpoint": "168.63.129.16", "pubkey_info": settings["_pubkeys"]}
    if "distro" in inspect.signature(helper.get_metadata_from_fabric).parameters:
        fabric["distro"] = mock.Mock()
    return {
        "hostname": given["local-hostname"],
        "user": settings["system_info"]["default_user"]["name"],
        "user-data": user_data.decode(),
        "vm": metadata["compute"]["vmId"],
        "custom data": metadata["extended"]["compute"]["hasCustomData"],
        "cards": [card["macAddress"] for card in metadata["network"]["interface"]],
        "keys": helper.get_metadata_from_fabric(**fabric),
    }


def main() -> None:
    cloud, path = sys.argv[1:]
    facts = json.loads(Path(path).read_text())
    dmi = module("dmi")
    dmi.read_dmi_data = facts["dmi"].get
    told = {"aws": ec2, "gcp": gce, "azure": azure}[cloud](facts)
    print(json.dumps(told))  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
