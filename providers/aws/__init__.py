"""Amazon Web Services: AMIs from EBS snapshots that are written block by block."""
