"""run-service.sh for real: processes, ports, tmux. Service and simulator are stand-ins."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from tests.support import block_until

from .harness import Checkout, command_lines, is_free, listener, redis_server, runs

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
needs_redis = pytest.mark.skipif(redis_server() is None, reason="no redis-server to be found")

OTHER_COZE_API = b'HTTP/1.1 200 OK\r\n\r\n{"data": {"status": "healthy", "service": "coze-api"}}'
OTHER_COZE = b'HTTP/1.1 200 OK\r\nx-tt-logid: 2\r\n\r\n{"code": 4100, "msg": "authentication is invalid"}'


@needs_redis
def test_starts_all_parts_twice_in_a_row_and_stop_leaves_nothing(checkout: Checkout) -> None:
    out = checkout.ok("test", "--no-tmux")
    pids = checkout.pids()
    assert set(pids) == {"service", "simulator", "redis"}
    assert out.count("curl -") == 3
    assert f"playground http://127.0.0.1:{checkout.env['PORT']}/coze/playground" in out
    assert "Setting up" not in out
    assert checkout.health()["env"] == {
        "CORS_ALLOW_ORIGINS": None,
        "HOST": "127.0.0.1",
        "PORT": checkout.env["PORT"],
        "WORKERS": "1",
        "REDIS_URL": checkout.env["REDIS_URL"],
        "APP_MODE": "local",
        "COZE_API_URL": f"http://127.0.0.1:{checkout.ports['simulator']}/coze/v3/chat",
        "COZE_API_TOKEN": "pat_simulator",
        "ENABLE_AUTH": "false",
    }

    again = checkout.ok("test", "--no-tmux")
    assert "already up" in again
    assert again.count("curl -") == 3
    assert checkout.pids() == pids

    status = checkout.ok("status")
    assert all(str(pid) in status for pid in pids.values())
    assert "healthy" in status
    assert "Stopped: service,simulator,redis" in checkout.ok("stop")
    checkout.assert_nothing_left(pids)
    assert checkout.run("status").returncode == 3
    assert "Nothing was running" in checkout.ok("stop")


def test_two_starts_at_once_make_one_service(checkout: Checkout) -> None:
    checkout.without("redis-server")
    with checkout.begin("test", "--no-tmux") as one, checkout.begin("test", "--no-tmux") as other:
        both = (one, other)
        said = [start.communicate(timeout=200)[0] for start in both]
    assert [start.returncode for start in both] == [0, 0], said
    assert sum("already up" in text for text in said) == 1
    assert set(checkout.pids()) == {"service", "simulator"}


def test_without_redis_server_it_says_loudly_that_all_is_lost_at_the_end(checkout: Checkout) -> None:
    checkout.without("redis-server")
    out = checkout.ok("test", "--no-tmux")
    assert "USING memory://" in out
    assert checkout.health()["env"]["REDIS_URL"] == "memory://"
    assert "memory:// (not started from here)" in checkout.ok("status")


def test_several_workers_are_refused_without_a_redis(checkout: Checkout) -> None:
    checkout.without("redis-server")
    assert "WORKERS=2 needs a Redis" in checkout.refused("test", "--no-tmux", WORKERS="2")
    checkout.assert_nothing_left({})


def test_restart_keeps_mode_and_settings_of_the_last_start(checkout: Checkout) -> None:
    checkout.without("redis-server")
    checkout.ok("test", "--no-tmux", CORS_ALLOW_ORIGINS="http://127.0.0.1:8000")
    before = checkout.pids()
    for name in ("PORT", "SIMULATOR_PORT", "REDIS_URL"):
        del checkout.env[name]
    assert "(test mode)" in checkout.ok("restart")
    after = checkout.pids()
    assert checkout.health()["env"]["PORT"] == str(checkout.ports["service"])
    assert checkout.health()["env"]["CORS_ALLOW_ORIGINS"] == "http://127.0.0.1:8000"
    assert not {before["service"], before["simulator"]} & set(after.values())
    assert "Stopped: service,simulator" in checkout.ok("stop")


def test_restart_into_a_mode_that_is_refused_leaves_the_running_one_alone(checkout: Checkout) -> None:
    checkout.without("redis-server")
    checkout.ok("test", "--no-tmux")
    assert "COZE_API_TOKEN" in checkout.refused("restart", "deployment")
    assert checkout.health()["status"] == "healthy"


def test_settings_come_from_dotenv_by_its_own_rules_and_never_reach_the_real_coze(checkout: Checkout) -> None:
    checkout.without("redis-server")
    port = checkout.env.pop("PORT")
    token = "COZE_API_TOKEN=pat_$(touch pwned)"
    text = f"export PORT='{port}'  # quoted\nHOST=127.0.0.1\n{token}\nAPP_MODE=remote\n"
    (checkout.root / ".env").write_text(text)
    checkout.ok("test", "--no-tmux")
    env = checkout.health()["env"]
    assert (env["PORT"], env["HOST"]) == (port, "127.0.0.1")
    assert (env["COZE_API_TOKEN"], env["APP_MODE"]) == ("pat_simulator", "local")
    assert not (checkout.root / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "http"), ("WORKERS", "0"), ("REDIS_URL", "localhost:6379"), ("SIMULATOR_PORT", "99999")],
)
def test_a_wrong_setting_is_named(checkout: Checkout, name: str, value: str) -> None:
    assert name in checkout.run("test", **{name: value}).stderr


# -- what belongs to somebody else ------------------------------------------------------------------------


def test_a_port_that_is_taken_is_named_with_its_owner_who_lives_on(checkout: Checkout) -> None:
    with listener() as (port, pid):
        said = checkout.refused("test", "--no-tmux", PORT=str(port))
        assert f"port {port} is taken by pid {pid}" in said
        assert "not a coze-api" in said
        assert runs(pid)


def test_a_coze_api_of_another_checkout_is_not_taken_for_ours(checkout: Checkout) -> None:
    with listener(OTHER_COZE_API) as (port, pid):
        assert "a coze-api that was not started from this checkout" in checkout.refused(
            "test", PORT=str(port)
        )
        checkout.ok("stop")
        assert runs(pid)


def test_something_else_on_the_simulator_port_is_named_and_nothing_is_left(
    checkout: Checkout,
) -> None:
    with listener() as (port, pid):
        said = checkout.refused("test", "--no-tmux", SIMULATOR_PORT=str(port))
        assert f"port {port} is taken by something that is not a Coze: pid {pid}" in said
    checkout.assert_nothing_left({})


def test_a_coze_that_answers_already_is_used_and_left_running(checkout: Checkout) -> None:
    checkout.without("redis-server")
    with listener(OTHER_COZE) as (port, pid):
        assert "a Coze answers" in checkout.ok("test", "--no-tmux", SIMULATOR_PORT=str(port))
        assert set(checkout.pids()) == {"service"}
        checkout.ok("stop")
        assert runs(pid)


def test_something_else_on_the_redis_port_is_named(checkout: Checkout) -> None:
    with listener() as (port, pid):
        said = checkout.refused("test", "--no-tmux", REDIS_URL=f"redis://127.0.0.1:{port}/0")
        assert f"redis://127.0.0.1:{port}/0" in said
        assert f"pid {pid}" in said


def test_a_redis_that_cannot_be_started_here_is_named_without_its_password(
    checkout: Checkout,
) -> None:
    url = f"redis://user:hush@127.0.0.1:{checkout.ports['redis']}/0"
    said = checkout.refused("test", "--no-tmux", REDIS_URL=url)
    assert f"redis://127.0.0.1:{checkout.ports['redis']}/0" in said
    assert "nothing listens there" in said
    assert "hush" not in said


@needs_redis
def test_the_password_of_redis_is_on_no_command_line(checkout: Checkout) -> None:
    server = redis_server()
    assert server
    port, secret = checkout.ports["redis"], "hush-" + os.urandom(8).hex()
    config = f'port {port}\nsave ""\nrequirepass {secret}\n'.encode()
    quiet = subprocess.DEVNULL
    other = subprocess.Popen([server, "-"], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
    assert other.stdin
    other.stdin.write(config)
    other.stdin.close()
    try:
        block_until(lambda: not is_free(port))
        with command_lines() as seen:
            out = checkout.ok("test", "--no-tmux", REDIS_URL=f"redis://:{secret}@127.0.0.1:{port}/0")
            checkout.ok("stop")
        assert "answers; using it" in out
        assert any("probe.py" in line for line in seen)
        assert not [line for line in seen if secret in line]
    finally:
        other.terminate()
        other.wait(10)


@needs_redis
def test_a_redis_that_answers_is_used_and_left_running(checkout: Checkout) -> None:
    server = redis_server()
    assert server
    port = checkout.ports["redis"]
    quiet = subprocess.DEVNULL
    other = subprocess.Popen([server, "--port", str(port), "--save", ""], stdout=quiet, stderr=quiet)
    try:
        block_until(lambda: not is_free(port))
        assert "answers; using it" in checkout.ok("test", "--no-tmux")
        assert set(checkout.pids()) == {"service", "simulator"}
        checkout.ok("stop")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_pid_that_meanwhile_belongs_to_somebody_else_is_not_signalled(checkout: Checkout) -> None:
    with listener() as (_, pid):
        (checkout.root / ".run").mkdir()
        (checkout.root / ".run/service.pid").write_text(f"{pid} 12345\n")
        assert "Nothing was running" in checkout.ok("stop")
        assert runs(pid)


# -- failures ---------------------------------------------------------------------------------------------


def test_a_service_that_does_not_start_shows_its_log_and_takes_the_rest_down(checkout: Checkout) -> None:
    said = checkout.refused("test", "--no-tmux", STUB_FAILS="1")
    assert "its process has ended" in said
    assert "flux capacitor" in said
    checkout.assert_nothing_left({})


def test_a_service_that_never_becomes_healthy_is_ended(checkout: Checkout) -> None:
    checkout.without("redis-server")
    said = checkout.refused("test", "--no-tmux", STUB_STATUS="unhealthy", START_TIMEOUT="1")
    assert "unhealthy" in said
    checkout.assert_nothing_left({})


def test_after_a_crash_the_next_start_clears_up_first(checkout: Checkout) -> None:
    checkout.without("redis-server")
    checkout.ok("test", "--no-tmux")
    crashed = checkout.pids()
    os.kill(crashed["service"], signal.SIGKILL)
    block_until(lambda: not runs(crashed["service"]))
    assert checkout.run("status").returncode == 3
    checkout.ok("test", "--no-tmux")
    assert not runs(crashed["simulator"])
    assert checkout.health()["status"] == "healthy"


def test_an_interrupted_start_leaves_nothing(checkout: Checkout) -> None:
    checkout.env["STUB_STATUS"] = "unhealthy"
    with checkout.begin("test", "--no-tmux") as start:
        block_until(lambda: "service" in checkout.pids(), 100)
        pids = checkout.pids()
        start.send_signal(signal.SIGTERM)
        start.communicate(timeout=200)
    assert start.returncode == 143
    checkout.assert_nothing_left(pids)


# -- deployment -------------------------------------------------------------------------------------------


def test_deployment_names_what_has_to_be_set(checkout: Checkout) -> None:
    said = checkout.refused("deployment", "--no-tmux")
    assert "deployment mode needs COZE_API_TOKEN COZE_BOT_ID" in said
    assert ".env" in said
    assert "needs COZE_BOT_ID\n" in checkout.refused("deployment", COZE_API_TOKEN="pat_x")


def test_deployment_refuses_memory(checkout: Checkout) -> None:
    credentials = {"COZE_API_TOKEN": "pat_x", "COZE_BOT_ID": "7"}
    assert "REDIS_URL is memory://" in checkout.refused("deployment", REDIS_URL="memory://", **credentials)
    checkout.without("redis-server")
    assert "no usable redis-server" in checkout.refused("deployment", "--no-tmux", **credentials)
    checkout.assert_nothing_left({})


@needs_redis
def test_deployment_keeps_redis_on_disk_and_asks_for_the_login_in_its_examples(checkout: Checkout) -> None:
    (checkout.root / ".env").write_text("COZE_API_TOKEN=pat_x\nCOZE_BOT_ID=7\n")
    out = checkout.ok("deployment", "--no-tmux")
    assert out.count("-H 'HtySudoerToken: <token>'") == 3
    assert "pat_x" not in out
    assert set(checkout.pids()) == {"service", "redis"}
    assert list((checkout.root / ".run/redis").iterdir())
    assert "already runs from here in deployment mode" in checkout.refused("test", "--no-tmux")


# -- tmux -------------------------------------------------------------------------------------------------


@needs_tmux
@needs_redis
def test_with_tmux_every_part_has_a_pane_and_a_log_and_stop_removes_the_session(checkout: Checkout) -> None:
    out = checkout.ok("test")
    assert "tmux attach -t coze-fastapi" in out
    panes = checkout.tmux("list-panes", "-t", "=coze-fastapi:", "-F", "#{pane_title} #{pane_pid}").stdout
    shown = dict(line.split() for line in panes.splitlines())
    pids = checkout.pids()
    assert set(shown) == {"log", "redis", "simulator", "service"}
    assert {name: int(shown[name]) for name in pids} == pids
    assert "stub: listening" in (checkout.root / ".run/service.log").read_text()
    assert "already up" in checkout.ok("test")
    assert not list((checkout.root / ".run").glob("*.env"))  # the environment may hold a token
    checkout.ok("stop")
    checkout.assert_nothing_left(pids)
    assert checkout.tmux("has-session", "-t", "=coze-fastapi").returncode != 0


@needs_tmux
def test_a_tmux_session_of_somebody_else_is_an_error_and_lives_on(checkout: Checkout) -> None:
    checkout.tmux("new-session", "-d", "-s", "coze-fastapi", "sleep", "600")
    assert "tmux session named coze-fastapi exists" in checkout.refused("test")
    checkout.ok("stop")
    assert checkout.tmux("has-session", "-t", "=coze-fastapi").returncode == 0
    checkout.without("redis-server")
    checkout.ok("test", "--no-tmux")


@needs_tmux
def test_after_ctrl_c_in_the_pane_the_next_start_makes_the_session_anew(checkout: Checkout) -> None:
    checkout.without("redis-server")
    checkout.ok("test")
    pid = checkout.pid("service")
    panes = checkout.tmux("list-panes", "-t", "=coze-fastapi:", "-F", "#{pane_pid} #{pane_id}").stdout
    pane = dict(line.split() for line in panes.splitlines())[str(pid)]
    checkout.tmux("send-keys", "-t", pane, "C-c")
    block_until(lambda: not runs(pid))
    assert checkout.run("status").returncode == 3
    checkout.ok("test")
    assert checkout.pid("service") != pid


def test_without_tmux_on_path_it_uses_background_processes(checkout: Checkout) -> None:
    checkout.without("tmux", "redis-server")
    assert "tmux" not in checkout.ok("test")
    assert checkout.health()["status"] == "healthy"


# -- usage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["test", "deployment"], ["stop", "test"], ["start"]])
def test_wrong_usage_is_explained(checkout: Checkout, arguments: list[str]) -> None:
    done = checkout.run(*arguments)
    assert done.returncode == 2
    assert "Usage: ./run-service.sh" in done.stderr
