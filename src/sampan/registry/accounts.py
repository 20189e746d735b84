"""`login`: are these credentials good? Answered by `GET /v2/`, the registry's own check."""

from __future__ import annotations

from sampan.registry.client import HostClient
from sampan.registry.errors import RegistryUnauthorized
from sampan.registry.transport import shown


def log_in(client: HostClient) -> str:
    """Prove who we are to a registry.

    Returns:
        an identity token to keep instead of the password, when the token server gives one; otherwise "".

    Raises:
        RegistryUnauthorized: the credentials are refused.
        RegistryError: the registry cannot be asked.
    """
    answer = client.request("GET", "/")
    if answer.status >= 400:
        error = client.failure(answer)
        answer.close()
        if isinstance(error, RegistryUnauthorized):
            text = f"login attempt to {shown(answer.url)} failed with status: 401 Unauthorized"
            raise RegistryUnauthorized(text, 401, error.code, error.detail)
        raise error
    answer.finish()
    return client.refresh_token
