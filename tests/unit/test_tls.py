"""The relay between a TLS connection and the engine's plain socket, with real sockets and a certificate of its own."""

from __future__ import annotations

import fcntl
import resource
import socket
import ssl
import subprocess
import threading

import pytest

from corten.api.tls import relay

HIGH = 1100  # above what select(2) knows


@pytest.fixture(autouse=True)
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= HIGH + 10:
        pytest.skip(f"this process may have {hard} descriptors, {HIGH + 10} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HIGH + 10), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """A file with key and certificate of localhost."""
    path = f"{tmp_path_factory.mktemp('tls')}/both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path, "-out", f"{path}.crt", "-days", "1",
         "-subj", "/CN=localhost"], check=True, capture_output=True,
    )  # fmt: skip
    with open(f"{path}.crt", encoding="ascii") as made, open(path, "a", encoding="ascii") as file:
        file.write(made.read())
    return path


def raised(sock: socket.socket) -> socket.socket:
    """The same socket at a descriptor that is as high as an engine's with many containers."""
    fd = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH)
    sock.close()
    return socket.socket(fileno=fd)


@pytest.mark.parametrize("place", [lambda sock: sock, raised], ids=["low", "high"])
def test_both_ways_and_the_end_of_one(certificate, place):
    """A client that has finished sending still gets all of the answer."""
    outside, inside = socket.socketpair()
    plain, engine = socket.socketpair()
    failed: list[BaseException] = []

    def serve() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        try:
            with context.wrap_socket(place(inside), server_side=True) as secure, place(plain) as ours:
                relay(secure, ours)
        except BaseException as error:
            failed.append(error)
            engine.close()

    thread = threading.Thread(target=serve)
    thread.start()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    outside.settimeout(20)
    engine.settimeout(20)
    with client.wrap_socket(outside) as secure, engine:
        secure.sendall(b"question")
        assert engine.recv(100) == b"question"
        answer = b"x" * (1 << 20)
        sending = threading.Thread(target=lambda: (engine.sendall(answer), engine.shutdown(socket.SHUT_WR)))
        sending.start()
        found = b""
        while data := secure.recv(1 << 16):
            found += data
        sending.join()
        assert found == answer
    thread.join(20)
    assert not failed
