"""Long-running operations, polled step by step by the task and not by the SDK's thread.

Imports the SDK: import it on first use only.
"""

from __future__ import annotations

from typing import Any

from publisher.provider import sdk_imports

with sdk_imports:
    from azure.core.exceptions import HttpResponseError
    from azure.core.polling.base_polling import BadResponse, BadStatus
    from azure.mgmt.core.polling.arm_polling import ARMPolling


class StepwisePolling(ARMPolling):
    """The SDK's own reading of Azure-AsyncOperation, Location and resource bodies;
    `run`, which the SDK calls in a thread, does nothing."""

    def run(self) -> None:
        return

    def step(self) -> bool:
        """One look at the operation; True when it has succeeded. Raises HttpResponseError."""
        try:
            if not self.finished():
                self.update_status()
        except (BadStatus, BadResponse) as error:
            raise HttpResponseError(response=self._response(), error=error) from error
        if not self.finished():
            return False
        if self.status().lower() != "succeeded":
            raise HttpResponseError(
                message=f"the operation ended as {self.status()}", response=self._response()
            )
        return True

    def retry_after(self) -> float:
        """Seconds that the last answer asked to wait; 0 for none."""
        value = self._response().headers.get("Retry-After", "")
        return float(value) if value.isdigit() else 0.0

    def outcome(self) -> dict[str, Any]:
        """The result of an action whose answer is no resource, such as a SAS: what
        the Location holds, or the operation's own output. Raises HttpResponseError."""
        url = self._operation.get_final_get_url(self._pipeline_response)
        if url:
            self._pipeline_response = self.request_status(url)
            try:
                self._check_answer()
            except BadStatus as error:
                raise HttpResponseError(response=self._response(), error=error) from error
        return self.body()

    def body(self) -> dict[str, Any]:
        response = self._response()
        response.read()
        data = response.json() if response.content else {}
        return data if isinstance(data, dict) else {}

    def _check_answer(self) -> None:
        if self._response().status_code not in (200, 201, 202, 204):
            raise BadStatus(f"status {self._response().status_code}")

    def _response(self) -> Any:
        return self._pipeline_response.http_response
