"""The tree of errors: what went wrong, where, what to do next, and the exit code.

PublishError                1   anything not named below
├── UsageError              2   the command line is wrong
├── PipelineError           3   pipeline.toml is wrong
├── HostError               4   this machine lacks a tool, space or permission
├── BuildError              5   the image could not be built
│   └── BootError           5   a guest did not boot; says in which phase
├── ProofError              6   the disk failed a lint, secret or rehearsal gate
├── ProviderError           7   a cloud refused or failed
│   ├── CredentialsError    8   the cloud does not accept these credentials
│   ├── UnreachableError    9   the cloud's endpoint does not answer
│   ├── ConflictError      10   the cloud holds something else under this name
│   ├── QuotaError         11   a limit of the account is reached
│   └── VerifyError        12   what the cloud holds is not what was asked for
├── StateError             13   the state directory is in use or damaged
└── Cancelled             130   SIGINT or SIGTERM; the next run continues
"""

from __future__ import annotations


class PublishError(Exception):
    """One message for the user: `key` is where, `hint` is what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, key: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{where}{self.message}"


class UsageError(PublishError):
    exit_code = 2


class PipelineError(PublishError):
    exit_code = 3


class HostError(PublishError):
    exit_code = 4


class BuildError(PublishError):
    exit_code = 5


class BootError(BuildError):
    """`phase` is the last one that the guest did not leave; `console` its last lines."""

    def __init__(
        self, message: str, *, phase: str, console: str = "", key: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, key=key, hint=hint)
        self.phase = phase
        self.console = console


class ProofError(PublishError):
    exit_code = 6


class ProviderError(PublishError):
    """A cloud's refusal or failure, classified by the provider's api.py.

    `transient` marks what a retry may cure, `retry_after` the seconds that the
    cloud asked for, `code` the vendor's own error code.
    """

    exit_code = 7

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        code: str = "",
        transient: bool = False,
        retry_after: float | None = None,
        key: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, key=key, hint=hint)
        self.provider = provider
        self.code = code
        self.transient = transient
        self.retry_after = retry_after


class CredentialsError(ProviderError):
    exit_code = 8


class UnreachableError(ProviderError):
    exit_code = 9


class ConflictError(ProviderError):
    exit_code = 10


class QuotaError(ProviderError):
    exit_code = 11


class VerifyError(ProviderError):
    exit_code = 12


class StateError(PublishError):
    exit_code = 13


class Cancelled(PublishError):
    exit_code = 130

    def __init__(self, message: str = "cancelled", *, key: str = "", hint: str = "") -> None:
        super().__init__(message, key=key, hint=hint or "run the same command again to continue")
