"""A real project, by Docker's own compose plugin and by docker-compose 1.29: nginx, PostgreSQL and Redis from Debian's packages.

What a user sees: names, an order that waits for health, several networks, two of a kind behind one name, data kept over down and up.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.engines import PATIENCE, RunningEngine, eventually
from tests.system.conftest import free_port

NGINX = "server { listen 80; location / { root /usr/share/nginx/html; } location /cache { proxy_pass http://cache:6379; } }"
PROJECT = """
{version}
services:
  db:
    image: services
    user: postgres
    command: ["sh", "-c", "[ -s /var/lib/postgresql/db/PG_VERSION ] || /pg/initdb -D /var/lib/postgresql/db -A trust -U app >/dev/null; exec /pg/postgres -D /var/lib/postgresql/db -c listen_addresses='*' -c unix_socket_directories=/tmp"]
    volumes: ["data:/var/lib/postgresql"]
    networks: [back]
    healthcheck: {{test: ["CMD", "/pg/pg_isready", "-h", "127.0.0.1", "-U", "app"], interval: 1s, timeout: 5s, retries: 60}}
  cache:
    image: services
    command: ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]
    networks: [back]
    healthcheck: {{test: ["CMD", "redis-cli", "ping"], interval: 1s, timeout: 5s, retries: 60}}
  web:
    image: services
    command: ["nginx", "-g", "daemon off;"]
    depends_on:
      db: {{condition: service_healthy}}
      cache: {{condition: service_healthy}}
    volumes: ["./site.conf:/etc/nginx/sites-enabled/default:ro"]
    networks: [front, back]
    ports: ["127.0.0.1:{port}:80"]
  worker:
    image: services
    command: ["sleep", "600"]
    networks: [front]
networks: {{front: {{}}, back: {{internal: true}}}}
volumes: {{data: {{}}}}
"""
CLIENTS = ("compose 2", "docker-compose 1.29")


@pytest.fixture(scope="module")
def engine(assets):
    archive = f"{assets}/images/services.tar"
    if not os.path.exists(archive):
        pytest.skip("needs the image services in the assets")
    running = RunningEngine("c")
    try:
        running.load(archive)
        yield running
    finally:
        running.stop()


@dataclass(frozen=True)
class Project:
    """One client and its project; names of containers are NAME-web-1, or NAME_web_1 in the old one."""

    engine: RunningEngine
    folder: str
    program: str
    name: str
    port: int
    joint: str

    def call(self, *words: str, check: bool = True) -> str:
        environment = self.engine.environment | {"COMPOSE_ANSI": "never", "COMPOSE_HTTP_TIMEOUT": "120"}
        done = subprocess.run([self.program, "-p", self.name, *words], cwd=self.folder, env=environment, capture_output=True, text=True,
                              timeout=180 * PATIENCE, check=False)  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.engine.log()[-2000:]}"
        return done.stdout

    def inside(self, service: str, *command: str, number: int = 1) -> str:
        return self.call("exec", "-T", "--index", str(number), service, *command)

    def sql(self, text: str) -> str:
        return self.inside("db", "/pg/psql", "-h", "127.0.0.1", "-U", "app", "-d", "postgres", "-Atc", text).strip()

    def shown(self, service: str) -> dict:
        return self.engine.client.get(f"/containers/{self.name}{self.joint}{service}{self.joint}1/json")


@pytest.fixture(params=CLIENTS)
def project(request, engine, assets, docker_cli, tmp_path) -> Iterator[Project]:
    if request.param == "compose 2":
        plugin = f"{assets}/compose/usr/libexec/docker/cli-plugins/docker-compose"
        if not os.path.exists(plugin):
            pytest.skip("needs the compose plugin in the assets")
        program, joint, version = plugin, "-", ""
    else:
        found = shutil.which("docker-compose")
        if not found or not re.search(r"version 1\.29", subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout):
            pytest.skip("needs docker-compose 1.29, which Debian 12 has")
        program, joint, version = found, "_", 'version: "2.4"'
    port = free_port()
    (tmp_path / "docker-compose.yml").write_text(PROJECT.format(version=version, port=port))
    (tmp_path / "site.conf").write_text(NGINX)
    made = Project(engine, str(tmp_path), program, f"shop{CLIENTS.index(request.param)}", port, joint)
    try:
        yield made
    finally:
        made.call("down", "-v", "-t", "1", check=False)


def get(port: int, path: str = "/") -> str:
    return subprocess.run(["curl", "-sS", "-m", "5", f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=False).stdout


def test_a_project_of_three_services(project):
    before = {network["Name"] for network in project.engine.client.get("/networks")}
    project.call("up", "-d", "--scale", "worker=2")
    health = project.shown("db")["State"]["Health"]
    assert health["Status"] == "healthy", health
    assert project.shown("web")["State"]["StartedAt"] > project.shown("db")["State"]["Health"]["Log"][0]["End"][:19]  # it waited
    eventually(lambda: "nginx" in get(project.port))
    # names: the service, with as many addresses as it has containers; networks that are not shared are apart
    assert len(set(re.findall(r"[\d.]+(?=\s+STREAM)", project.inside("web", "getent", "ahostsv4", "worker")))) == 2
    assert project.inside("web", "redis-cli", "-h", "cache", "set", "key", "value").strip() == "OK"
    assert project.call("exec", "-T", "worker", "getent", "hosts", "db", check=False) == ""
    # data stays over down and up, and goes with -v
    project.sql("create table kept (word text); insert into kept values ('here')")
    project.call("down", "-t", "5")
    assert {network["Name"] for network in project.engine.client.get("/networks")} == before
    project.call("up", "-d")
    assert project.sql("select word from kept") == "here"
    eventually(lambda: "nginx" in get(project.port))
    project.call("down", "-v", "-t", "5")
    assert project.engine.client.get("/containers/json", all=1) == []
    assert project.engine.client.get("/volumes")["Volumes"] == []
