"""Starts what the client tests need: Arcus, and MariaDB and etcd where they are wanted. Everything is a plain process on
127.0.0.1 with a folder of its own, stopped by pid."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise SystemExit(f"clients: {what} did not come within {seconds} s")


class Servers:
    def __init__(self, arcus):
        self.arcus = arcus
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="arcus-clients-"))
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name, p in reversed(self.running):
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
                try:
                    p.wait(20)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, name, args, **kw):
        log = open(self.dir / f"{name}.log", "ab")
        p = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **kw)
        self.running.append((name, p))
        return p

    def tail(self, name, lines=30):
        path = self.dir / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def alive(self, name, p):
        if p.poll() is not None:
            raise SystemExit(f"clients: {name} ended with {p.returncode}:\n{self.tail(name)}")

    def mariadb(self):
        """-> database URL"""
        data, port = self.dir / "mariadb", free_port()
        root = os.getuid() == 0
        user = ["--user=mysql"] if root else []
        data.mkdir()
        if root:
            os.chmod(self.dir, 0o755)
            shutil.chown(data, "mysql", "mysql")
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db",
                        "--auth-root-authentication-method=normal", "--innodb-log-file-size=16M"] + user,
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        p = self.start("mariadbd", ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={data}/s",
                                    f"--port={port}", "--bind-address=127.0.0.1", "--innodb-log-file-size=16M",
                                    "--innodb-buffer-pool-size=64M", "--max-connections=200"] + user)

        def up():
            self.alive("mariadbd", p)
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0

        wait(up, "MariaDB")
        return f"mysql://root@127.0.0.1:{port}/arcus"

    def etcd(self):
        """-> endpoint"""
        client, peer = free_port(), free_port()
        c, u = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        p = self.start("etcd", ["etcd", f"--data-dir={self.dir}/etcd", f"--listen-client-urls={c}",
                                f"--advertise-client-urls={c}", f"--listen-peer-urls={u}",
                                f"--initial-advertise-peer-urls={u}", f"--initial-cluster=default={u}"])

        def up():
            self.alive("etcd", p)
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", client)) == 0

        wait(up, "etcd")
        return c

    def dev(self, *args, name="arcus"):
        """Starts `arcus dev` -> the contents of dev.json"""
        data = self.dir / f"{name}-data"
        listen = [f"--listen=127.0.0.1:{free_port()}", f"--grpc-listen=127.0.0.1:{free_port()}",
                  f"--agent-listen=127.0.0.1:{free_port()}", f"--metrics-listen=127.0.0.1:{free_port()}"]
        p = self.start(name, [self.arcus, "dev", f"--data-dir={data}", *listen, *args])

        def up():
            self.alive(name, p)
            return (data / "dev.json").exists()

        wait(up, "arcus dev")
        return json.loads((data / "dev.json").read_text())
