"""Copying into the guest as a tar stream, and telling an SSH server from an open port."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import threading
from pathlib import Path

import pytest

from publisher.errors import BuildError
from publisher.vm.network import HOST
from publisher.vm.shell import archive, listening


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "big").write_bytes(os.urandom(3_000_001))
    (root / "tool").write_text("#!/bin/sh\n")
    (root / "tool").chmod(0o755)
    (root / "link").symlink_to("sub/big")
    (root / ("long-" * 30)).write_text("x")
    return root


def unpack(source: Path, name: str = "", mode: int | None = None) -> tarfile.TarFile:
    data = b"".join(archive(source, name, mode=mode, uid=5, gid=6))
    return tarfile.open(fileobj=io.BytesIO(data))


def test_a_trees_contents_keep_their_names_bytes_and_links(tree: Path) -> None:
    with unpack(tree) as tar:
        names = tar.getnames()
        assert names == sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*"))
        big = tar.extractfile("sub/big")
        assert big is not None
        assert big.read() == (tree / "sub" / "big").read_bytes()
        assert tar.getmember("link").linkname == "sub/big"
        assert {(m.uid, m.gid) for m in tar} == {(5, 6)}
        assert tar.getmember("tool").mode == 0o755


def test_a_mode_is_for_files_and_leaves_directories_passable(tree: Path) -> None:
    with unpack(tree, mode=0o640) as tar:
        assert tar.getmember("tool").mode == 0o640
        assert tar.getmember("sub").isdir()
        assert tar.getmember("sub").mode & 0o111


def test_one_file_takes_the_name_that_it_is_given(tree: Path) -> None:
    with unpack(tree / "tool", "bin") as tar:
        assert tar.getnames() == ["bin"]


def test_what_is_no_file_is_refused(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(BuildError, match="pipe is neither"):
        unpack(tree)


@pytest.mark.parametrize(("says", "is_ssh"), [(b"SSH-2.0-OpenSSH_9.2\r\n", True), (b"", False)])
def test_only_a_server_that_greets_is_listening(says: bytes, is_ssh: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        assert listening(HOST, server.getsockname()[1], 2) is is_ssh
        thread.join()


def test_an_open_port_without_a_guest_behind_it_is_not_listening() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not listening(HOST, server.getsockname()[1], 0.2)
