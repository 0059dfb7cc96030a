#!/usr/bin/env python3
"""Runs unmodified CloudStack clients against `arcus dev`: once on SQLite with in-process coordination, once on MariaDB
with etcd. Prints one line a client, and at the end `clients: N passed, M failed`.

usage: run.py --arcus target/debug/arcus [--only sqlite|mariadb] [--client NAME]
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
import zipfile

from servers import Servers

HERE = pathlib.Path(__file__).resolve().parent
# The release of the `ansible` package whose wheel carries the CloudStack collection; only the collection is unpacked.
ANSIBLE = "11.13.0"
COLLECTION = "ansible_collections/ngine_io/cloudstack/"


def collection(folder):
    """The CloudStack collection as published -> the folder for ANSIBLE_COLLECTIONS_PATH"""
    done = folder / "ansible_collections/ngine_io/cloudstack/MANIFEST.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
                        "-d", str(folder), f"ansible=={ANSIBLE}"], check=True)
        with zipfile.ZipFile(next(folder.glob("ansible-*.whl"))) as wheel:
            names = [n for n in wheel.namelist() if n.startswith(COLLECTION)]
            wheel.extractall(folder, sorted(names, key=lambda n: n.endswith("MANIFEST.json")))
        for wheel in folder.glob("ansible-*.whl"):
            wheel.unlink()
    return folder


def clients(dev, zone, target):
    access = [dev["endpoint"], dev["apikey"], dev["secretkey"]]
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(target / "collections"), ANSIBLE_NOCOLOR="1",
               ANSIBLE_LOCALHOST_WARNING="False", ANSIBLE_HOME=str(target / "ansible-home"), LC_ALL="C.UTF-8")
    values = dict(endpoint=access[0], key=access[1], secret=access[2], zone="Sandbox-simulator",
                  template="CentOS 5.6 (64-bit) no GUI (Simulator)", ansible_python_interpreter=sys.executable)
    playbook = str(pathlib.Path(sys.executable).parent / "ansible-playbook")
    load = [sys.executable, HERE / "load.py", "--url", access[0], "--key", access[1], "--secret", access[2],
            "--poll", "0.05", "--runs", "1", "deploy-batch", "--count", "30", "--concurrency", "30",
            "--zone", zone["zone"], "--template", zone["template"], "--offering", zone["offering"],
            "--network", zone["network"]]
    return {
        "cs": ([sys.executable, HERE / "with_cs.py", *access], None),
        "libcloud": ([sys.executable, HERE / "with_libcloud.py", *access], None),
        "ansible": ([playbook, "-i", "localhost,", "-e", json.dumps(values), HERE / "instance.yml"], env),
        "load": (load, None),
    }


def none_failed(lines):
    """Whether load.py's batches went without a failure (its exit code doesn't say)."""
    batches = [b for b in map(json.loads, lines.splitlines()) if "failed" in b]
    return bool(batches) and all(b["failed"] == 0 for b in batches)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--arcus", required=True)
    p.add_argument("--only", choices=["sqlite", "mariadb"])
    p.add_argument("--client")
    a = p.parse_args()
    arcus = str(pathlib.Path(a.arcus).resolve())
    target = HERE.parent.parent / "target" / "clients"
    collection(target / "collections")
    passed = failed = 0

    def check(where, name, command, env=None):
        nonlocal passed, failed
        start = time.monotonic()
        r = subprocess.run([str(c) for c in command], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        good = r.returncode == 0 and (name != "load" or none_failed(r.stdout))
        print(f"{where}: {name}: {'passed' if good else 'FAILED'} in {time.monotonic() - start:.1f} s", flush=True)
        if good:
            passed += 1
        else:
            failed += 1
            print(r.stdout[-6000:], r.stderr[-6000:], sep="\n", flush=True)
        return r.stdout if good else None

    for where in ["sqlite", "mariadb"]:
        if a.only not in (None, where):
            continue
        with Servers(arcus) as servers:
            extra = []
            if where == "mariadb":
                extra = [f"--database={servers.mariadb()}", f"--etcd={servers.etcd()}"]
            dev = servers.dev(*extra)
            out = check(where, "sim_zone", [sys.executable, HERE / "sim_zone.py", "--url", dev["endpoint"], "--key",
                                           dev["apikey"], "--secret", dev["secretkey"], "--settings"])
            if out:
                zone = json.loads(out)
                for name, (command, env) in clients(dev, zone, target).items():
                    if a.client in (None, name):
                        check(where, name, command, env)
            if failed:
                print(servers.tail("arcus", 40), flush=True)
    print(f"clients: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
