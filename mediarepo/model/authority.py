"""Who may do what: the one table of authority, which SECURITY.md shows and every endpoint, query and command asks.

Each line names an action on a thing, and says for every role whether it may. A homeserver's admins and the admins that
the configuration names have the same authority: over their own homeserver.
"""

from enum import StrEnum


class Role(StrEnum):
    """Who acts."""

    OPERATOR = "operator's token"
    COMMAND_LINE = "command line"
    HOMESERVER_ADMIN = "homeserver's admin"
    NAMED_ADMIN = "named admin"
    USER = "user"
    GUEST = "guest"
    APPSERVICE = "application service"
    OTHER_SERVER = "other server"
    ANONYMOUS = "anonymous"


class Thing(StrEnum):
    """What is acted upon; another homeserver means one that shares the repository."""

    OWN_MEDIA = "own media"
    NEIGHBOURS_MEDIA = "another homeserver's media"
    REMOTE_MEDIA = "other servers' media"
    CONTENT = "content by its hash"
    OWN_USER = "own user"
    NEIGHBOURS_USER = "another homeserver's user"
    ROOM = "room"
    SERVER = "server"
    PREVIEW = "preview"
    IMPORT = "imports and exports"
    RETENTION = "retention"
    TASK = "tasks"
    AUDIT = "audit"
    USAGE = "usage"
    STORE = "stores and repairs"
    INSTALLATION = "processes, schema, configuration file"
    SIGNING_KEY = "signing keys"
    CONFIGURATION = "limits for clients"
    HEALTH = "health, figures, documents"


class Action(StrEnum):
    """What is done."""

    DOWNLOAD = "download"
    DOWNLOAD_LEGACY = "download without a token"
    UPLOAD = "upload"
    SEE = "see"
    BYPASS_QUARANTINE = "bypass quarantine"
    VIEW = "view as admin"
    HIDE = "hide"
    UNHIDE = "unhide"
    PROTECT = "protect"
    UNPROTECT = "unprotect"
    HOLD = "hold"
    RELEASE = "release"
    PIN = "pin"
    UNPIN = "unpin"
    DELETE = "delete"
    RESTORE = "restore"
    PURGE = "purge"
    READ = "read"
    CHANGE = "change"


class Grant(StrEnum):
    """Whether a role may do it."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "404"
    """Not, and it is not even told whether there is such a thing."""
    OWN = "own"
    """For the own homeserver alone: what the role sets counts there, and it lifts only what was set there."""
    ALONE = "alone"
    """Only where no other homeserver shares the repository, as what all share, only the operator removes."""


_Row = dict[Role, Grant]


def _row(admin: Grant, *, everybody: Grant = Grant.NO, **others: Grant) -> _Row:
    """Say what admins of a homeserver may, what those below may; `others` by the name of a role."""
    row = dict.fromkeys(Role, everybody)
    row |= {Role.OPERATOR: Grant.YES, Role.COMMAND_LINE: Grant.YES}
    row |= {Role.HOMESERVER_ADMIN: admin, Role.NAMED_ADMIN: admin}
    return row | {Role[name.upper()]: grant for name, grant in others.items()}


def _read(anonymous: Grant, other_server: Grant) -> _Row:
    """Say who may read media as users do; the operator's token and commands are no user's."""
    row = dict.fromkeys(Role, Grant.YES)
    return row | {
        Role.OPERATOR: Grant.NO,
        Role.COMMAND_LINE: Grant.NO,
        Role.ANONYMOUS: anonymous,
        Role.OTHER_SERVER: other_server,
    }


def _users(*, guest: Grant) -> _Row:
    """Say that everybody with an account may; the operator's token and commands are no user's."""
    row = dict.fromkeys(Role, Grant.NO)
    row |= dict.fromkeys((Role.USER, Role.APPSERVICE, Role.HOMESERVER_ADMIN, Role.NAMED_ADMIN), Grant.YES)
    return row | {Role.GUEST: guest}


def _by_users_only(admin: Grant) -> _Row:
    """Say what admins may who come as users do."""
    return _row(admin, operator=Grant.NO, command_line=Grant.NO)


def _marks(thing: Thing, admin: Grant) -> dict[tuple[Thing, Action], _Row]:
    """Give everything that can be wanted of single media."""
    actions = (Action.HIDE, Action.UNHIDE, Action.PROTECT, Action.UNPROTECT, Action.HOLD, Action.RELEASE)
    return {(thing, action): _row(admin) for action in (*actions, Action.PIN, Action.UNPIN)}


TABLE: dict[tuple[Thing, Action], _Row] = {
    (Thing.OWN_MEDIA, Action.DOWNLOAD): _read(Grant.NO, Grant.YES),
    (Thing.NEIGHBOURS_MEDIA, Action.DOWNLOAD): _read(Grant.NO, Grant.NO),
    (Thing.REMOTE_MEDIA, Action.DOWNLOAD): _read(Grant.NO, Grant.NO),
    (Thing.OWN_MEDIA, Action.DOWNLOAD_LEGACY): dict.fromkeys(Role, Grant.YES),
    (Thing.NEIGHBOURS_MEDIA, Action.DOWNLOAD_LEGACY): dict.fromkeys(Role, Grant.YES),
    (Thing.REMOTE_MEDIA, Action.DOWNLOAD_LEGACY): dict.fromkeys(Role, Grant.YES),
    (Thing.OWN_MEDIA, Action.UPLOAD): _users(guest=Grant.NO),
    (Thing.OWN_MEDIA, Action.SEE): _row(Grant.YES),
    (Thing.NEIGHBOURS_MEDIA, Action.SEE): _row(Grant.UNKNOWN),
    (Thing.REMOTE_MEDIA, Action.SEE): _row(Grant.OWN),
    (Thing.OWN_MEDIA, Action.BYPASS_QUARANTINE): _by_users_only(Grant.YES),
    (Thing.NEIGHBOURS_MEDIA, Action.BYPASS_QUARANTINE): _by_users_only(Grant.UNKNOWN),
    (Thing.REMOTE_MEDIA, Action.BYPASS_QUARANTINE): _by_users_only(Grant.YES),
    (Thing.OWN_MEDIA, Action.VIEW): _row(Grant.YES),
    (Thing.NEIGHBOURS_MEDIA, Action.VIEW): _row(Grant.UNKNOWN),
    (Thing.REMOTE_MEDIA, Action.VIEW): _row(Grant.OWN),
    **_marks(Thing.OWN_MEDIA, Grant.OWN),
    **_marks(Thing.NEIGHBOURS_MEDIA, Grant.UNKNOWN),
    **_marks(Thing.REMOTE_MEDIA, Grant.OWN),
    (Thing.OWN_MEDIA, Action.DELETE): _row(Grant.YES),
    (Thing.NEIGHBOURS_MEDIA, Action.DELETE): _row(Grant.UNKNOWN),
    (Thing.REMOTE_MEDIA, Action.DELETE): _row(Grant.ALONE),
    (Thing.OWN_MEDIA, Action.RESTORE): _row(Grant.OWN),
    (Thing.NEIGHBOURS_MEDIA, Action.RESTORE): _row(Grant.UNKNOWN),
    (Thing.REMOTE_MEDIA, Action.RESTORE): _row(Grant.ALONE),
    (Thing.REMOTE_MEDIA, Action.PURGE): _row(Grant.ALONE),
    (Thing.CONTENT, Action.HIDE): _row(Grant.NO),
    (Thing.CONTENT, Action.UNHIDE): _row(Grant.NO),
    (Thing.CONTENT, Action.READ): _row(Grant.NO),
    (Thing.OWN_USER, Action.SEE): _row(Grant.YES),
    (Thing.NEIGHBOURS_USER, Action.SEE): _row(Grant.NO),
    (Thing.OWN_USER, Action.HIDE): _row(Grant.OWN),
    (Thing.NEIGHBOURS_USER, Action.HIDE): _row(Grant.NO),
    (Thing.OWN_USER, Action.DELETE): _row(Grant.YES),
    (Thing.ROOM, Action.HIDE): _row(Grant.OWN),
    (Thing.SERVER, Action.READ): _row(Grant.YES),
    (Thing.SERVER, Action.HIDE): _row(Grant.NO),
    (Thing.SERVER, Action.UNHIDE): _row(Grant.NO),
    (Thing.PREVIEW, Action.SEE): _users(guest=Grant.NO) | {Role.COMMAND_LINE: Grant.YES},
    (Thing.IMPORT, Action.READ): _row(Grant.NO, operator=Grant.NO),
    (Thing.IMPORT, Action.CHANGE): _row(Grant.NO, operator=Grant.NO),
    (Thing.RETENTION, Action.READ): _row(Grant.NO),
    (Thing.RETENTION, Action.CHANGE): _row(Grant.NO),
    (Thing.TASK, Action.READ): _row(Grant.NO),
    (Thing.TASK, Action.CHANGE): _row(Grant.NO),
    (Thing.AUDIT, Action.READ): _row(Grant.OWN),
    (Thing.USAGE, Action.READ): _row(Grant.OWN, user=Grant.OWN, appservice=Grant.OWN),
    (Thing.STORE, Action.READ): _row(Grant.NO),
    (Thing.STORE, Action.CHANGE): _row(Grant.NO, operator=Grant.NO),
    (Thing.INSTALLATION, Action.READ): _row(Grant.NO, operator=Grant.NO),
    (Thing.INSTALLATION, Action.CHANGE): _row(Grant.NO, operator=Grant.NO),
    (Thing.SIGNING_KEY, Action.READ): _row(Grant.NO, operator=Grant.NO),
    (Thing.SIGNING_KEY, Action.CHANGE): _row(Grant.NO, operator=Grant.NO),
    (Thing.CONFIGURATION, Action.READ): _users(guest=Grant.NO),
    (Thing.HEALTH, Action.READ): dict.fromkeys(Role, Grant.YES),
}
"""The table: what is not in it, nobody may."""


def grant_of(role: Role, action: Action, thing: Thing) -> Grant:
    """Return what the table grants a role."""
    row = TABLE.get((thing, action))
    return Grant.NO if row is None else row[role]
