"""Groups of real redis-servers on loopback: a Cluster with replicas, and a master that Sentinels watch.

To a test a group is what a single ``RedisServer`` is: ``url``, ``client``, ``keys_without_ttl``.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.cluster import ClusterNode, RedisCluster

from scripts.capacity_model import usual_ranges
from tests.support import block_until
from tests.support.redis_server import RedisServer, find_redis_server

SERVICE = "coze-test"
MASTERS = 3
NODE_TIMEOUT_MS = 1000
_READY_SECONDS = 30.0


def block_until_ready(condition: Callable[[], Any]) -> None:
    """A server that does not answer yet is not ready."""
    block_until(condition, _READY_SECONDS, not_yet=(redis.RedisError, OSError))


def _port_pair() -> int:
    """A port that is free together with that of the cluster bus, which is 10000 higher."""
    for _ in range(200):
        port = random.randrange(21_000, 31_000)
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
    raise RuntimeError("no pair of free ports")


class Group:
    """Servers that belong together. They all run again after ``resume``, and none does after ``close``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers: list[RedisServer] = []

    url: str

    def begin(self) -> None:
        raise NotImplementedError

    @property
    def running(self) -> bool:
        return True  # a group is repaired as a whole, by ``resume``

    def add(self, options: Sequence[str], port: int | None = None) -> RedisServer:
        place = self.directory / f"server-{len(self.servers)}"
        place.mkdir()
        server = RedisServer(place, options=["--repl-diskless-sync-delay", "0", *options])
        server.port = port or server.port
        server.start()
        self.servers.append(server)
        return server

    def at(self, port: int) -> RedisServer:
        return next(server for server in self.servers if server.port == port)

    def start(self) -> None:
        self.resume()

    def resume(self) -> None:
        for server in self.servers:
            if server.running:
                server.resume()
            else:
                server.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        raise NotImplementedError

    def client(self) -> Any:
        """A client of the test's own, for ``with``."""
        raise NotImplementedError

    def keys_without_ttl(self) -> list[str]:
        with self.client() as client:
            return sorted(key.decode() for key in client.scan_iter(count=1000) if client.ttl(key) == -1)

    def close(self) -> None:
        for server in self.servers:
            server.kill()


class Cluster(Group):
    """Three masters with a third of the slots each, and a replica of each. ``ranges``: which slots these are;
    by themselves those that redis-cli would deal out."""

    ranges: Sequence[range] = usual_ranges(MASTERS)

    def begin(self) -> None:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
        options += ["--cluster-replica-validity-factor", "0"]
        for _ in range(2 * MASTERS):
            self.add(options, _port_pair())
        self._join()
        nodes = ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:MASTERS])
        self.url = f"redis+cluster://{nodes}"
        self.wait_ready()

    def _join(self) -> None:
        first = self.servers[0]
        for number, server in enumerate(self.servers):
            with server.client() as client:
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number < MASTERS:
                    client.execute_command("CLUSTER ADDSLOTS", *self.ranges[number])
                if number:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", first.port)
        ids = [self._id(server) for server in self.servers]
        for number, server in enumerate(self.servers[MASTERS:]):
            block_until_ready(lambda s=server, i=ids[number]: self._knows(s, i))
            with server.client() as client:
                client.execute_command("CLUSTER REPLICATE", ids[number])

    @staticmethod
    def _id(server: RedisServer) -> str:
        with server.client() as client:
            return str(client.execute_command("CLUSTER MYID").decode())

    @staticmethod
    def _knows(server: RedisServer, node_id: str) -> bool:
        with server.client() as client:
            return node_id in client.execute_command("CLUSTER NODES").__repr__()

    def wait_ready(self) -> None:
        """Every node finds the cluster whole and every replica is in step."""

        def whole() -> bool:
            masters = 0
            for server in self.servers:
                with server.client() as client:
                    info, role = client.execute_command("CLUSTER INFO"), client.info("replication")
                state = (
                    info
                    if isinstance(info, dict)
                    else dict(line.split(":") for line in info.decode().split())
                )
                if state["cluster_state"] != "ok" or int(state["cluster_known_nodes"]) != 2 * MASTERS:
                    return False
                masters += role["role"] == "master"
                if role["role"] == "slave" and role["master_link_status"] != "up":
                    return False
            return masters == MASTERS

        block_until_ready(whole)

    def client(self) -> Any:
        nodes = [ClusterNode("127.0.0.1", server.port) for server in self.servers if server.running]
        return RedisCluster(startup_nodes=nodes)

    def master_of(self, key: str) -> RedisServer:
        with self.client() as client:
            return self.at(client.get_node_from_key(key).port)


class Sentinels(Group):
    """A master, two replicas, and three Sentinels that agree by two."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.sentinels: list[tuple[int, subprocess.Popen[bytes]]] = []

    def begin(self) -> None:
        master = self.add([])
        for _ in range(2):
            self.add(["--replicaof", "127.0.0.1", str(master.port)])
        for number in range(3):
            self.sentinels.append(self._sentinel(number, master.port))
        places = ",".join(f"127.0.0.1:{port}" for port, _ in self.sentinels)
        self.url = f"redis+sentinel://{places}/{SERVICE}/0"
        self.wait_ready()

    def _sentinel(self, number: int, master: int) -> tuple[int, subprocess.Popen[bytes]]:
        place = self.directory / f"sentinel-{number}"
        place.mkdir()
        port = RedisServer(place).port
        config = place / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {place}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        with (place / "sentinel.log").open("ab") as log:
            process = subprocess.Popen(
                [find_redis_server(), str(config), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return port, process

    def ask(self, *parts: Any, sentinel: int = 0) -> Any:
        with redis.Redis(port=self.sentinels[sentinel][0], socket_timeout=2) as client:
            return client.execute_command(*parts)

    @property
    def master(self) -> RedisServer:
        """As the first Sentinel sees it."""
        _, port = self.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)
        return self.at(int(port))

    @property
    def replicas(self) -> list[RedisServer]:
        master = self.master
        return [server for server in self.servers if server is not master]

    def force_failover(self) -> None:
        """Asks until a Sentinel does it: shortly after a failover, or before it knows a good replica, it will
        not."""

        def asked() -> bool:
            return bool(self.ask("SENTINEL FAILOVER", SERVICE))

        block_until_ready(asked)

    def wait_ready(self) -> None:
        """The Sentinels agree on a master that is one, know each other, and both replicas are in step."""

        def whole() -> bool:
            ports = set()
            for number in range(len(self.sentinels)):
                _, port = self.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE, sentinel=number)
                ports.add(int(port))
                with redis.Redis(port=self.sentinels[number][0], socket_timeout=2) as client:
                    state = client.sentinel_master(SERVICE)
                if state["num-other-sentinels"] != 2 or state["num-slaves"] != 2:
                    return False
                if {"s_down", "o_down", "failover_in_progress"} & set(str(state["flags"]).split(",")):
                    return False
            if len(ports) != 1:
                return False
            with self.at(ports.pop()).client() as client:
                info = client.info("replication")
            return info["role"] == "master" and all(
                info.get(f"slave{n}", {}).get("state") == "online" for n in range(2)
            )

        block_until_ready(whole)

    def client(self) -> Any:
        return self.master.client()

    def close(self) -> None:
        for _, process in self.sentinels:
            process.send_signal(signal.SIGKILL)
            process.wait(5)
        super().close()


@contextmanager
def running_group(kind: type[Group]) -> Iterator[Any]:
    """A group in a directory of its own; both are gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="coze-test-ha-"))
    group = kind(directory)
    try:
        group.begin()
        yield group
    finally:
        group.close()
        shutil.rmtree(directory, ignore_errors=True)
