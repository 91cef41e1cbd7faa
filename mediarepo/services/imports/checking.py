"""Rows of a source, checked as an upload is: what would be refused there is left out, and told."""

from dataclasses import replace

from mediarepo.model.declared import LAST_TS, is_content_type, time_or_none, upload_name_or_none, user_id_or_none
from mediarepo.model.import_ledger import Reason
from mediarepo.model.import_source import SourceMedia


def check_media(media: SourceMedia) -> SourceMedia:
    """Give media that can be served; `repaired` names what could not be taken as the source has it."""
    content_type = media.content_type.strip() if media.content_type is not None else None
    checked = replace(
        media,
        content_type=content_type if content_type and is_content_type(content_type) else None,
        upload_name=upload_name_or_none(media.upload_name),
        user_id=user_id_or_none(media.user_id) if media.is_local else None,
        created_ts=time_or_none(media.created_ts),
        last_access_ts=time_or_none(media.last_access_ts),
        expires_ts=None if media.expires_ts is None else min(max(media.expires_ts, 0), LAST_TS),
    )
    changed = []
    if content_type and checked.content_type is None:
        changed.append("content_type")
    if media.upload_name != checked.upload_name:
        changed.append("upload_name")
    if media.is_local and (media.user_id or None) != checked.user_id:
        changed.append("user_id")
    if media.created_ts and checked.created_ts is None:
        changed.append("created_ts")
    if media.last_access_ts and checked.last_access_ts is None:
        changed.append("last_access_ts")
    return replace(checked, repaired=tuple(dict.fromkeys((*media.repaired, *changed))))


def repairs_of(media: SourceMedia) -> tuple[Reason | None, str]:
    """Say, for the ledger, what could not be taken as the source has it."""
    if not media.repaired:
        return None, ""
    return Reason.REPAIRED, f"could not be kept as it was: {', '.join(media.repaired)}"
