"""Who may talk to a policy server: where it listens, the token, and what is answered before a connection stands."""

from __future__ import annotations

import hmac
import ipaddress
import logging
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from failsight.core.errors import FailsightError
from failsight.core.foreign import read_count


def read_port(port: int) -> int:
    """0 to 65535; 0 lets the system choose. Raises EpisodeDataError."""
    return read_count(port, "--port", 0, 65535)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than localhost counts as reachable."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_token(host: str, token: str) -> None:
    """Refuse to open a policy to other machines without a token. Raises FailsightError."""
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise FailsightError("A token is printable ASCII without spaces, because it travels in an HTTP header.")
    if not token and not is_loopback(host):
        raise FailsightError(
            f"Other machines can reach {host or 'every address'}; give --token TEXT (or FAILSIGHT_TOKEN), which clients "
            "send as 'Authorization: Bearer TEXT', or serve on 127.0.0.1."
        )


def admit(request: Request, token: str, full: bool) -> Response | None:
    """None to go on, or the answer instead: health, a missing token, too many connections."""
    if request.path == "/healthz":
        return _page(HTTPStatus.OK, "OK")
    if token and not _knows(request.headers.get_all("Authorization"), token):
        return _page(HTTPStatus.UNAUTHORIZED, "failsight: send the server's token as 'Authorization: Bearer TOKEN'.")
    if full:
        return _page(HTTPStatus.SERVICE_UNAVAILABLE, "failsight: too many connections; close some.")
    return None


def _knows(given: list[str], token: str) -> bool:
    """Openpi's client can only say Api-Key; compared in constant time."""
    if len(given) != 1:
        return False
    scheme, _, said = given[0].strip().partition(" ")
    known = scheme.lower() in ("bearer", "api-key")
    return hmac.compare_digest(said.strip().encode(), token.encode()) and known


def _page(status: HTTPStatus, text: str) -> Response:
    body = f"{text}\n".encode()
    headers = Headers({"Content-Type": "text/plain", "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)


class QuietLog(logging.LoggerAdapter[logging.Logger]):
    """The websocket library's log without tracebacks: whoever knocks wrongly gets one line."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Drop the traceback."""
        return msg, {**kwargs, "exc_info": None}
