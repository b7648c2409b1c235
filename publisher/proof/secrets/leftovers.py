"""What tells by its place alone: histories, and logins of the clouds' own tools."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.proof.inspect.budget import Damaged, Unreadable
from publisher.proof.inspect.tree import Tree

HISTORIES = (
    *(".bash_history", ".zsh_history", ".zhistory", ".sh_history", ".ash_history", ".history"),
    *(".python_history", ".node_repl_history", ".irb_history", ".php_history"),
    *(
        ".ksh_history",
        ".mksh_history",
        ".local/share/powershell/PSReadLine/ConsoleHost_history.txt",
    ),
    *(
        ".mariadb_history",
        ".mongodb/mongosh/mongosh_repl_history",
        ".mongodb/mongosh/.mongosh_repl_history",
    ),
    *(".duckdb_history", ".gdb_history", ".Rhistory"),
    *(".mysql_history", ".psql_history", ".sqlite_history", ".rediscli_history", ".dbshell"),
    *(".lesshst", ".viminfo", ".local/share/fish/fish_history", ".local/state/python_history"),
)
LOGINS = (
    *(".aws/sso/cache", ".aws/cli/cache", ".azure/msal_token_cache.json"),
    *(".azure/msal_token_cache.bin", ".azure/service_principal_entries.json"),
    *(".config/gcloud/credentials.db", ".config/gcloud/access_tokens.db"),
    *(".config/gcloud/application_default_credentials.json", ".config/gcloud/legacy_credentials"),
)


HOMES_MOST = 20_000


def homes(tree: Tree) -> list[str]:
    """The home directories of the accounts, and all in /home. Raises Damaged where
    there are more than any machine has."""
    found = {"/root"}
    for line in tree.text("/etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[5].startswith("/") and fields[5] != "/":
            found.add(fields[5].rstrip("/"))
    found.update(f"/home/{name}" for name in tree.names("/home"))
    if len(found) > HOMES_MOST:
        raise Damaged(f"there are more homes than {HOMES_MOST}")
    return sorted(found)


def is_full(tree: Tree, path: str) -> bool:
    """Whether a file is there that is not empty, or a directory in which anything is."""
    place = tree.find(path)
    if place is None:
        return False
    return bool(tree.names(path)) if place.node.is_dir else place.node.size > 0


def leftovers(tree: Tree) -> Iterator[tuple[str, str, str]]:
    """(rule, title, path) of each that is there and not empty. Raises Unreadable at the
    end where some could not be looked for."""
    missed: Unreadable | None = None
    for home in homes(tree):
        for rule, title, names in (
            ("history", "history of commands", HISTORIES),
            ("cloud-login", "login of a cloud's command-line tool", LOGINS),
        ):
            for name in names:
                path = f"{home}/{name}"
                try:
                    full = is_full(tree, path)
                except Unreadable as error:
                    missed = missed or error
                    continue
                if full:
                    yield rule, title, path
    if missed is not None:
        raise missed
