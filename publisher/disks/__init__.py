"""Virtual disks: one format a file; extents, reading, streaming, the local store."""
