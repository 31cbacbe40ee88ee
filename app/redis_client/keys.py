"""Key names."""

from typing import Final, NamedTuple

from app.redis_client.commands import Key
from app.utils import SHARDS, group_of, shard_of

ALL: Final = "all"
"""The whole service, where others are named by their digest."""


class SessionKeys(NamedTuple):
    """The keys of a session and its chats, all in one slot; ``Keys`` says what each of them holds."""

    session: Key
    chats: Key
    order: Key
    queue: Key
    leases: Key
    used: Key
    erased: Key
    runs: Key
    """A chat's id completes it, as that of ``logs``."""
    logs: Key


class HeldKeys(NamedTuple):
    """Who holds sessions, in each layer of the limits, all in one slot; entries leave at their expiry."""

    user_sessions: Key
    owner_sessions: Key
    root_sessions: Key
    sessions: Key
    owner_users: Key
    root_users: Key
    users: Key


class RateKeys(NamedTuple):
    """The token buckets of one kind of call, one for each layer, all in one slot."""

    user_bucket: Key
    owner_bucket: Key
    root_bucket: Key
    service_bucket: Key


class UsageKeys(NamedTuple):
    """What the names of the keys begin with in which a shard counts."""

    usage: Key
    usage_owners: Key


class Keys:
    """Every key name, in one place.

    A session, its chats, their logs, its queue and the shard's leases carry the shard as hash tag, so
    they share a slot. Indexes have a tag of their own.
    """

    shards: Final = range(SHARDS)

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def _shard(self, shard: int) -> str:
        return f"{self.prefix}{{{shard:02d}}}:"

    def _at(self, any_id: str) -> str:
        return self._shard(shard_of(any_id))

    def of_session(self, session_id: str) -> SessionKeys:
        """What scripts about a session or one of its chats work on."""
        shard = self._at(session_id)
        return SessionKeys(
            session=Key(f"{shard}session:{session_id}"),
            chats=Key(f"{shard}chats:{group_of(session_id)}"),
            order=Key(f"{shard}order:{session_id}"),
            queue=Key(f"{shard}queue:{session_id}"),
            leases=Key(f"{shard}leases"),
            used=Key(f"{shard}used:{session_id}"),
            erased=Key(f"{shard}erased:{session_id}"),
            runs=Key(f"{shard}run:"),
            logs=Key(f"{shard}log:"),
        )

    def session(self, session_id: str) -> Key:
        return Key(f"{self._at(session_id)}session:{session_id}")

    def chats(self, any_id: str) -> Key:
        """Hash of a session's chat records, ``owner`` among them; a chat's id leads there too."""
        return Key(f"{self._at(any_id)}chats:{group_of(any_id)}")

    def run(self, chat_id: str) -> Key:
        """Hash of what the owner of a chat that is not over needs: epoch, state, ids at Coze, the request."""
        return Key(f"{self._at(chat_id)}run:{chat_id}")

    def log(self, chat_id: str) -> Key:
        return Key(f"{self._at(chat_id)}log:{chat_id}")

    def leases(self, shard: int) -> Key:
        return Key(f"{self._shard(shard)}leases")

    def idempotency(self, session_id: str, digest: str) -> Key:
        return Key(f"{self._at(session_id)}idem:{digest}")

    def session_idempotency(self, digest: str) -> Key:
        return Key(f"{self.prefix}{{index}}:idem:{digest}")

    def bell(self, shard: int, process: str) -> Key:
        """Stream that wakes this process' own blocking read of a shard."""
        return Key(f"{self._shard(shard)}bell:{process}")

    def inbox(self, process: str) -> Key:
        """Stream of what other processes ask this one to do."""
        return Key(f"{self.prefix}inbox:{process}")

    @property
    def replicas(self) -> Key:
        """Hash of the processes that are there, by their names: when each was last heard of, and what it
        says of itself."""
        return Key(f"{self.prefix}{{index}}:replicas")

    def failures(self, root: str) -> Key:
        """List of the newest chats of a root that failed."""
        return Key(f"{self.prefix}{{index}}:failures:{root}")

    def user_sessions(self, user: str) -> Key:
        return Key(f"{self.prefix}{{index}}:user:{user}")

    def held(self, user: str, owner: str, root: str) -> HeldKeys:
        """The sessions of a user, his owner, its root and all, and the users who have any."""
        index = f"{self.prefix}{{index}}:"
        return HeldKeys(
            user_sessions=self.user_sessions(user),
            owner_sessions=Key(f"{index}sessions:{owner}"),
            root_sessions=Key(f"{index}sessions:{root}"),
            sessions=self.all_sessions,
            owner_users=Key(f"{index}users:{owner}"),
            root_users=Key(f"{index}users:{root}"),
            users=self.all_users,
        )

    def remaining_sessions(self, user: str) -> Key:
        """A user's sessions of which anything is left, so also those that are over."""
        return Key(f"{self.prefix}{{index}}:kept:{user}")

    def users_by_name(self, name: str) -> Key:
        """Users of one name in one root, whoever owns them."""
        return Key(f"{self.prefix}{{index}}:names:{name}")

    def file(self, file_id: str) -> Key:
        return Key(f"{self._shard(shard_of(file_id))}file:{file_id}")

    def files(self, user: str) -> Key:
        """A user's uploads by expiry; written before the record, so that erasing finds all."""
        return Key(f"{self.prefix}{{index}}:files:{user}")

    def uploaders(self, name: str) -> Key:
        """Users of one name in one root who have uploaded something."""
        return Key(f"{self.prefix}{{index}}:uploaders:{name}")

    def conversation(self, name: str, digest: str = "") -> Key:
        """Whose a conversation is. ``name``: users of one name in one root, who share a slot. Without
        ``digest`` that is to be added."""
        return Key(f"{self.prefix}{{{name}}}:conversation:{digest}")

    def conversations(self, name: str) -> Key:
        """The same conversations by user and expiry, so that an administrator, and the version before, can
        erase them."""
        return Key(f"{self.prefix}{{{name}}}:conversations")

    def conversations_had(self, name: str, user: str = "") -> Key:
        """Those of one user, so that his own erasure reads nobody else's. Without ``user`` that is to be
        added."""
        return Key(f"{self.prefix}{{{name}}}:had:{user}")

    def conversation_list(self, name: str, user: str = "") -> Key:
        """A user's conversations that were talked in, by expiry and so by their last use. Without ``user``
        that is to be added."""
        return Key(f"{self.prefix}{{{name}}}:listed:{user}")

    def owned(self, owner: str, digest: str) -> Key:
        """A conversation that an owner has, by whatever user. ``owner``: his digest."""
        return Key(f"{self.prefix}{{{owner}}}:owned:{digest}")

    def owned_lists(self, owner: str) -> Key:
        """An owner's conversations by expiry; a bot's id completes it."""
        return Key(f"{self.prefix}{{{owner}}}:owned_by:")

    def labelled(self, name: str) -> Key:
        """Conversations of owners that users of one name in one root have begun, so that an administrator,
        and the version before, can erase them."""
        return Key(f"{self.prefix}{{{name}}}:labelled")

    def begun(self, name: str, owner: str = "") -> Key:
        """Those of one owner, so that his own erasure reads nobody else's. Without ``owner`` that is to be
        added."""
        return Key(f"{self.prefix}{{{name}}}:begun:{owner}")

    def usage(self, shard: int, owner: str = "", root: str = "") -> UsageKeys:
        """What an owner has used in this shard's chats, and who of his root has used anything. A day's number
        is to be added; where they are not given ``owner`` and ``root``, too."""
        return UsageKeys(
            usage=Key(f"{self._shard(shard)}usage:{owner}{':' if owner else ''}"),
            usage_owners=Key(f"{self._shard(shard)}owners:{root}{':' if root else ''}"),
        )

    def spent(self, shard: int, whose: str = "", day: int | str = "") -> Key:
        """Tokens of a day where there is a quota: of a user, an owner, a root or all. What is not given is to
        be added."""
        return Key(f"{self._shard(shard)}spent:{whose}{':' if whose else ''}{day}")

    def rate(self, kind: str, user: str, owner: str, root: str) -> RateKeys:
        """All of them where the indexes are: a call takes a token of each, or of none."""
        buckets = f"{self.prefix}{{index}}:rate:{kind}:"
        return RateKeys(*(Key(buckets + whose) for whose in (user, owner, root, ALL)))

    def waiting(self, shard: int) -> Key:
        """Chats that wait for tool outputs; a score is the time after which it is forgotten."""
        return Key(f"{self._shard(shard)}waiting")

    def queued(self, shard: int) -> Key:
        return Key(f"{self._shard(shard)}queued")

    @property
    def probes(self) -> tuple[Key, ...]:
        """A key in each slot that the service uses, for a script that finds out whether all works there."""
        shards = (f"{self._shard(shard)}probe" for shard in self.shards)
        return tuple(Key(key) for key in (*shards, f"{self.prefix}{{index}}:probe"))

    @property
    def all_sessions(self) -> Key:
        return Key(f"{self.prefix}{{index}}:sessions")

    @property
    def all_users(self) -> Key:
        return Key(f"{self.prefix}{{index}}:users")
