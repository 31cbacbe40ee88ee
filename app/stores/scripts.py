# mypy: disable-error-code="empty-body"
"""The Lua scripts: what each takes, what it replies. Their bodies are the files of the same names in ``lua``.

A session's scripts take all of its keys (``at``). Durations are milliseconds. ``mine`` is the caller as an
owner, ``admin_prefix`` what the owners begin with whom he may see as an admin ("" for others). Without an
Idempotency-Key the fingerprint is empty, and any key of the slot stands in its place.
"""

# fmt: off

from typing import NamedTuple

from app.redis_client import Arg, HeldKeys, Key, RateKeys, Script, SessionKeys, UsageKeys
from app.stores.policy import LogPolicy

# -- between processes ---------------------------------------------------------------------------------

@Script
def signal_send(*, signals: Key, most: int, ttl: int, name: str, value: str) -> None:
    """Appends to a stream of ``most`` entries that a process reads. In one step: whoever dies, or is cut off,
    between two commands would leave a key that lives for ever."""

@Script
def replica_seen(*, replicas: Key, process: str, about: str, ttl: int) -> int:
    """Says that a process is there, and ``about`` it what it says of itself; forgets who is silent. -> how
    many there are."""

@Script
def failure_note(*, failures: Key, most: int, ttl: int, entry: bytes) -> None:
    """Puts an entry in front of the ``most`` newest."""

# -- sessions ------------------------------------------------------------------------------------------

@Script
def session_open(*, at: SessionKeys, session_ttl: int, owner: str, fields: list[Arg]) -> list[bytes]:
    """-> the session's fields and values, none where it was erased. Repeating it with the same id changes
    nothing."""

@Script
def session_read(
    *,
    at: SessionKeys,
    mine: str,
    admin_prefix: str,
    limit: int,
    small: int,
    touch: bool,
    session_ttl: int,
    hold: int,
) -> tuple[bytes, list[bytes], list[bytes | None], list[bytes], int, int]:
    """-> state of the session, its fields, its newest records, the states of their runs, whether its index
    entry is due, whether it would be more than ``small`` bytes: then without fields and records. 0: any
    number."""

@Script
def session_page(
    *, at: SessionKeys, mine: str, admin_prefix: str, limit: int, small: int, before: str
) -> tuple[bytes, list[bytes | None], list[bytes], int, bytes, int]:
    """-> state of the session, records newest first, the states of their runs, whether more follow, when the
    session expires, whether it would be more than ``small`` bytes: then without records. 0: any number. An
    unknown ``before`` gives an empty page."""

@Script
def session_change(
    *, at: SessionKeys, mine: str, admin_prefix: str, session_ttl: int, hold: int, fields: list[Arg]
) -> tuple[bytes, list[bytes], int]:
    """-> state of the session, its fields afterwards, whether its index entry is due."""

@Script
def session_end(
    *, at: SessionKeys, mine: str, admin_prefix: str, idle_only: bool, reason: str
) -> tuple[bytes, list[bytes], bytes, list[bytes]]:
    """-> state before ('busy': ``idle_only`` has spared it), its fields afterwards, the running chat or '',
    queued chats."""

@Script
def session_erase(*, at: SessionKeys) -> int:
    """-> how many chats went with it."""

@Script
def session_conversation(
    *, session: Key, conversation: str, credential: str, remembered_at: str
) -> bytes | None:
    """-> the conversation that holds, which is the first, '' where a chat runs that brings its own; None
    where the session is gone."""

@Script
def session_remembered(*, session: Key, conversation: str, remembered_at: str, listed: bool) -> int:
    """-> 0 where no session has that conversation any more."""

@Script
def idempotency_claim(*, key: Key, fingerprint: str, session_id: str) -> tuple[bytes, bytes]:
    """-> 'new' | 'same' | 'reused', and the session that the key stands for."""

# -- chats ---------------------------------------------------------------------------------------------

@Script
def chat_create(
    *, at: SessionKeys, idempotency_key: Key, mine: str, admin_prefix: str, chat: str, record: bytes,
    first_frame: bytes, queued_frame: bytes, request: bytes, title: str, process: str, policy: LogPolicy,
    on_busy: str, max_queued: int, place_bytes: int, max_records: int, fingerprint: str, after: str
) -> tuple[bytes, bytes, list[bytes], bytes, int]:
    """``after``: the chat that has to be the session's newest, '*' any, '' none for a single session.

    -> 'started' | 'queued', the chat in the way, the session's fields, the chat that was displaced,
    whether the session's index entry is due
    | 'same' | 'busy' | 'full', the chat that is meant, ... | 'reused' | 'gone' | 'moved' (``after`` is
    not the newest) | 'none' | 'terminated' | 'expired'."""

@Script
def chat_read(
    *, chats: Key, run: Key, chat: str, mine: str, admin_prefix: str, small: int
) -> tuple[bytes, bytes, int]:
    """-> the chat's record, '' where there is none that the caller may see; the state of its run, ''; whether
    the record is more than ``small`` bytes: then without both. 0: any number."""

@Script
def chat_claim(
    *, at: SessionKeys, idempotency_key: Key, chat: str, epoch: str, process: str, policy: LogPolicy,
    force: bool, expected: str, max_claims: int, record: bytes, outputs: bytes, said: str, fingerprint: str
) -> tuple[bytes, bytes, list[bytes], list[bytes], bytes, bytes]:
    """``epoch`` '' is whichever, ``expected`` '' any state. ``force``: the lease may still run. ``record``,
    if given, takes the place of a waiting chat's. ``said``: how much the chat had said before ``outputs``.

    -> 'start' | 'claimed' | 'exhausted' | 'expired', epoch, fields of run and session, record, state before
    | 'no' | 'reused', ..."""

@Script
def chat_ids(
    *, at: SessionKeys, chat: str, epoch: str, coze_chat: str, conversation: str, credential: str
) -> int:
    """-> 0 where somebody else owns the chat."""

@Script
def chat_cancel(*, at: SessionKeys, chat: str, lease: int) -> tuple[bytes, bytes, bytes]:
    """-> 'gone' | 'ready' (it was queued: the caller claims and ends it) | 'waiting' | 'started', epoch, the
    owner's process."""

@Script
def chat_end(
    *, at: SessionKeys, counted: UsageKeys, spent: Key, spenders: list[Arg], chat: str, epoch: str,
    record: bytes, waiting: bool, first_frame: str, last_frame: str, frames: bytes, packed: bytes,
    policy: LogPolicy, draining: bool, counts: str, row: str, session_known: bool
) -> tuple[bytes, bytes, bytes, int]:
    """``waiting``: for tool outputs, so that it is not over. ``packed``: the whole log; '' while it waits.
    ``counted`` lacks the number of a day, ``spent`` that and one of ``spenders``, who are counted where there
    is a quota. ``counts``: 'tokens input output' for ``row`` of ``usage``. ``session_known``: the owner can
    write the session again.

    -> 'ok', the next chat or '', when the session expires, whether its index entry is due
    | 'fenced' | 'lost', ..."""

@Script
def chat_forget(*, at: SessionKeys, chat: str, record: bytes, rest: bytes) -> bytes:
    """``record``: as it is; ``rest``: what is left of it, '' nothing.

    -> 'ok' | 'none' | 'running' | 'changed'."""

@Script
def run_restore(*, at: SessionKeys, chat: str, epoch: str, session_id: str, request: str, hold: int) -> int:
    """Of a chat whose run was thrown away, and whose owner is gone: as much of it as the next owner needs to
    ask Coze. -> 0 where the chat is over, or not to be claimed."""

@Script
def log_read(
    *, log: Key, start: str, most: int, small: int
) -> tuple[list[tuple[bytes, list[bytes]]], int]:
    """-> entries from ``start`` on with fields and values, at least one, as many as fit into a page; whether
    they would be more than ``small`` bytes: then none. 0: any number."""

@Script
def log_rewrite(
    *, at: SessionKeys, chat: str, epoch: str, first_frame: str, last_frame: str, frames: bytes,
    policy: LogPolicy, record: bytes, owner: str, session_fields: list[bytes], run_fields: list[bytes]
) -> bytes:
    """-> 'ok' | 'fenced'."""

# -- leases --------------------------------------------------------------------------------------------

@Script
def lease_scan(*, leases: Key, limit: int) -> list[bytes]:
    """-> members whose lease has run out, oldest first."""

@Script
def lease_renew(*, leases: Key, runs: Key, lease: int, members: list[str]) -> list[bytes]:
    """-> the members that are gone, or whose run is."""

@Script
def lease_release(*, leases: Key, members: list[str]) -> int:
    """-> how many were still there."""

# -- indexes -------------------------------------------------------------------------------------------

@Script
def index_admit(
    *, held: HeldKeys, remaining_sessions: Key, users_by_name: Key, session_id: str, user: str, ttl: int,
    most_sessions: list[Arg], most_users: list[Arg], over: str
) -> tuple[bytes, int, int, list[bytes]]:
    """``most_sessions`` and ``most_users``: the limits of all layers, 0 = none. ``over``: one of the user's
    sessions that is over, '' if none.

    -> 'ok' | 'evict', now, the number of the layer that is full (from 0), the user's own sessions and their
    scores, least recently active first | 'sessions' or 'users', of which the layer has as many as may be."""

@Script
def index_single(
    *, remaining_sessions: Key, users_by_name: Key, session_id: str, user: str, ttl: int
) -> None:
    """For a session of a single chat: it can be erased with its user, but is neither listed nor counted."""

@Script
def index_drop(*, held: HeldKeys, session_id: str, user: str) -> None:
    """A session is over."""

@Script
def index_forget_user(*, held: HeldKeys, remaining_sessions: Key, users_by_name: Key, user: str) -> int:
    """-> 1 if nothing is left of the user, who then leaves the indexes."""

@Script
def index_unwritten(*, index: Key, members: list[str], life: int, opening: int) -> list[bytes]:
    """Of ``members`` there is no record: they leave, but for those that were entered less than ``opening``
    ago and may be about to get one. ``life``: of an entry. -> those."""

@Script
def index_prune(*, sessions: Key, users: Key, limit: int) -> tuple[int, int, int, list[bytes]]:
    """-> how many sessions and users were taken out since their time is up, now, the sessions that expire
    soonest and their scores."""

@Script
def file_index(*, files: Key, uploaders: Key, file_id: str, user: str, ttl: int) -> None:
    """Enters a file that is about to be written."""

@Script
def file_read(*, file: Key, mine: str, roots: str) -> bytes | None:
    """``mine``: what the records of the caller's files begin with, of this one; ``roots``: those of all that
    he may see as an admin ('' for others). -> the record, None where there is none that he may see."""

@Script
def uploaders_forget(*, uploaders: Key, files: Key, users: list[bytes]) -> None:
    """Those of ``users`` leave who have no file any more. ``files``: what the names of their indexes begin
    with."""

# -- conversations, rates, usage -----------------------------------------------------------------------

class ConversationKeys(NamedTuple):
    """Where a conversation is written down. ``user``: as the indexes name him."""

    record: Key
    conversations: Key
    had: Key
    listed: Key
    user: str

class OwnedKeys(NamedTuple):
    """Where a conversation of an owner's is. ``lists``: what the names of his lists begin with, one for each
    bot."""

    record: Key
    lists: Key

@Script
def conversation_remember(
    *, at: ConversationKeys, ttl: int, value: str, conversation: str, title: str, bot: str, created: str
) -> int:
    """Writes down whose a conversation is; ``value``: bot and credential. With its id (``conversation``) it
    is listed from now on, under this title where it has none. -> 0 where its user has deleted it."""

@Script
def conversation_use(*, at: ConversationKeys, ttl: int) -> tuple[bytes, bytes]:
    """-> bot and credential, '' where this user has had no such conversation; its title or ''."""

@Script
def conversation_list(*, listed: Key, records: Key, before: str, limit: int) -> tuple[int, list[list[bytes]]]:
    """The last used first, behind the one of the digest ``before`` ('' is none). -> whether more follow; the
    fields of each."""

@Script
def conversation_rename(*, record: Key, title: str) -> list[bytes]:
    """-> its fields; none where this user has no such conversation to be seen."""

@Script
def conversation_drop(*, at: ConversationKeys, mark: bool) -> int:
    """``mark``: what is still under way in it must not write it down again. -> 0 where there was none."""

@Script
def conversation_file(*, conversations: Key, had: Key, ttl: int) -> int:
    """A portion of what the version before has entered under a name alone goes into the lists of its users,
    too. ``had``: what their names begin with. -> how many."""

@Script
def conversation_forget(*, conversations: Key, had: Key, listed: Key, records: Key, user: str) -> int:
    """A portion of the user's. ``records``: what their names begin with. -> how many went."""

@Script
def conversation_forget_named(*, conversations: Key, had: Key, lists: Key, records: Key) -> int:
    """A portion of everybody's of that name. All but the first: what their names begin with. -> how many
    went."""

@Script
def owned_remember(*, at: OwnedKeys, ttl: int, bot: str, fields: list[Arg]) -> list[bytes]:
    """Writes down that an owner has a conversation. -> its fields and values, which are those of whoever came
    first."""

@Script
def owned_use(*, at: OwnedKeys, ttl: int) -> list[bytes]:
    """-> its fields and values, none where the owner has no such conversation."""

@Script
def owned_serve(
    *, at: OwnedKeys, ttl: int, ended: str, session_id: str, user_id: str, bot: str
) -> list[bytes]:
    """Puts ``session_id`` in the place of the session that has ``ended`` ('' where there was none). The first
    chat says whose the conversation is, and with which bot. -> as ``owned_use``."""

@Script
def owned_label(*, labelled: Key, begun: Key, member: str, conversation: str, ttl: int) -> None:
    """A user has begun a conversation: whoever erases him finds it. ``member``: with its owner."""

@Script
def owned_unlabel(
    *, labelled: Key, begun: Key, member: str, conversation: str, ttl: int, opening: int
) -> int:
    """It was erased, or is not the user's. -> 1 where it was entered less than ``opening`` ago, and stays."""

@Script
def owned_not_filed(*, labelled: Key, limit: int) -> list[bytes]:
    """-> members that the version before has entered under a name alone."""

@Script
def owned_file(
    *, labelled: Key, begun: Key, ttl: int, members: list[str], owners: list[str], conversations: list[str]
) -> None:
    """Such members go into the lists of their owners, too; each has its owner's digest and its conversation
    at the same place. ``begun``: what the names of those lists begin with."""

@Script
def owned_change(*, record: Key, fields: list[Arg]) -> int:
    """-> 0 where the owner has no such conversation any more: nothing is changed."""

@Script
def owned_forget(*, at: OwnedKeys) -> None:
    """Takes a conversation out of its list, too."""

@Script
def rate_take(*, buckets: RateKeys, takes: bool, per_minute: list[Arg]) -> tuple[int, int]:
    """``per_minute``: the rates of all layers, 0 = none. ``takes``: else it is only looked whether they have
    one.

    -> milliseconds until each of them has a token; 0: one was taken of each. The layer that takes longest."""

@Script
def usage_read(*, usage: Key, of_days: list[str], most: int, whole: bool) -> list[list[bytes]]:
    """``of_days``: what completes the names of hashes, owner and day. -> names and sums of the rows of each,
    for as many of them as have ``most`` rows together; ``whole``: of the first one however many it has."""

@Script
def usage_erase(
    *, at: UsageKeys, root: str, of_days: list[str], place: bytes, rows: str
) -> tuple[int, bytes]:
    """``rows``: the pattern of the names of the user's rows. ``place``: where the first of ``of_days`` goes
    on, '0' from its beginning. -> how many of them are done, and where the next one goes on."""
