"""Application services whose tokens are honoured without asking the homeserver."""

import hmac
import re

from mediarepo.config.homeservers import AppserviceConfig, HomeserverConfig
from mediarepo.errors import ForbiddenError, InvalidParamError
from mediarepo.model.requester import Requester
from mediarepo.model.user_id import parse_user_id


def find_appservice(homeserver: HomeserverConfig, token: str) -> AppserviceConfig | None:
    """Find the application service whose as_token this is, in constant time for each."""
    found = None
    for appservice in homeserver.appservices:
        secret = appservice.as_token.get_secret_value()
        if hmac.compare_digest(secret.encode(), token.encode("utf-8", "surrogateescape")):
            found = appservice
    return found


def requester_for(
    homeserver: HomeserverConfig, appservice: AppserviceConfig, *, user_id: str | None, device_id: str | None
) -> Requester:
    """Say whom the application service acts for; ForbiddenError for users outside its namespaces."""
    acting = appservice.sender if user_id is None else user_id
    if acting != appservice.sender and not _owns(appservice, homeserver, acting):
        raise ForbiddenError("the application service may not act for this user")
    return Requester(
        acting,
        homeserver.server_name,
        device_id=device_id,
        rate_limited=appservice.rate_limited,
        appservice=appservice.id,
    )


def _owns(appservice: AppserviceConfig, homeserver: HomeserverConfig, user_id: str) -> bool:
    """Say whether a namespace covers the user; historical characters in it are the namespace's business."""
    try:
        parsed = parse_user_id(user_id, ascii_only=True)
    except InvalidParamError:
        return False
    if parsed.server_name != homeserver.server_name:
        return False
    return any(re.fullmatch(namespace.regex, user_id) for namespace in appservice.namespaces.users)
