#!/usr/bin/env python3
"""Runs the incumbent's own integration suites, unchanged, against `arcus dev` with simulated hosts.

Needs a checkout of its 4.11 branch (nothing of it is kept here) and a Python 2.7 with requests, paramiko, nose, ddt, netaddr,
"dnspython<2", "pyvmomi<7", retries, ipmisim and "mysql-connector-python<8.0.24". Their Marvin builds the zone; then each suite
gets a line for each of its tests. Port 8080 must be free. Suites that look into the incumbent's database, or log in to its
hosts, can't pass.

usage: upstream.py --checkout DIR --python PYTHON2.7 [--packages DIR] [--arcus target/debug/arcus] [SUITE ...]
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What docs/compatibility.md has a table of.
SUITES = """test_accounts test_service_offerings test_disk_offerings test_vm_life_cycle test_affinity_groups
test_host_maintenance test_templates test_deploy_vms_with_varied_deploymentplanners test_dynamicroles test_staticroles
test_global_settings test_login test_volumes test_nic test_iso test_snapshots test_portforwardingrules test_loadbalance
test_metrics_api test_host_annotations test_regions test_scale_vm test_usage_events test_non_contigiousvlan
test_over_provisioning test_deploy_vm_iso test_deploy_vm_root_resize test_deploy_vm_with_userdata test_reset_vm_on_reboot
test_list_ids_parameter""".split()

# Python 2: makes the classes of all commands of the contract with their generator.
GENERATE = """
import json, os, sys
sys.path.insert(0, os.path.join(sys.argv[1], 'marvin'))
import codegenerator
out = os.path.join(sys.argv[1], 'marvin')
if not os.path.isdir(out + '/cloudstackAPI'): os.makedirs(out + '/cloudstackAPI')
made = codegenerator.CodeGenerator(out)
for command in made.loadCmdFromJSON(open(sys.argv[2])): made.generate(command)
made.finalize()
"""
NOSE = """
import nose
from nose.plugins.manager import ZeroNinePlugin
from marvin.marvinPlugin import MarvinPlugin
nose.main(addplugins=[ZeroNinePlugin(MarvinPlugin())])
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def described(command):
    """A command of the contract, as listApis would tell of it."""
    params = [dict(name=p["name"], required=p.get("required", False), type=p.get("type", "STRING").lower())
              for p in command.get("params", [])]
    fields = [dict(name=f["name"], type="string") for f in command.get("response_fields", []) if f.get("name")]
    return dict(name=command["name"], isasync=str(command["kind"] != "sync").lower(), params=params, response=fields)


def prepare(checkout, work, python):
    """A copy of their client library with the classes of all commands."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(checkout / "tools/marvin", work / "marvin")
    shutil.copytree(checkout / "test/integration", work / "integration")
    commands = json.loads((ROOT / "tests/contract/commands.json").read_text())
    apis = [described(c) for c in commands]
    (work / "apis.json").write_text(json.dumps(dict(listapisresponse=dict(count=len(apis), api=apis))))
    subprocess.run([python, "-c", GENERATE, str(work / "marvin"), str(work / "apis.json")], check=True)


def start(arcus, work):
    """A fresh `arcus dev` -> (process, what dev.json says)."""
    # Their Marvin knows no other port for users' keys.
    flags = ["--listen=127.0.0.1:8080"]
    flags += [f"--{name}-listen=127.0.0.1:{free_port()}" for name in ("grpc", "agent", "metrics")]
    log = open(work / "arcus.log", "w")
    process = subprocess.Popen([arcus, "dev", f"--data-dir={work}/data", *flags], stdout=log, stderr=log)
    told = work / "data/dev.json"
    for _ in range(600):
        if told.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    return process, json.loads(told.read_text())


def configuration(checkout, work, dev):
    text = (checkout / "setup/dev/advanced.cfg").read_text()
    config = json.loads("\n".join(line for line in text.splitlines() if not line.startswith("#")))
    host, port = re.match(r"http://([^:]+):(\d+)/", dev["endpoint"]).groups()
    config["mgtSvr"][0].update(mgtSvrIp=host, port=int(port), apiKey=dev["apikey"], securityKey=dev["secretkey"])
    config["logger"] = {"LogFolderPath": str(work / "logs")}
    (work / "zone.json").write_text(json.dumps(config))
    return work / "zone.json"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--checkout", required=True, type=pathlib.Path)
    p.add_argument("--python", required=True)
    p.add_argument("--packages", default="", help="where that Python finds the packages, if not by itself")
    p.add_argument("--arcus", default=str(ROOT / "target/debug/arcus"))
    p.add_argument("--work", type=pathlib.Path, default=ROOT / "target/upstream")
    p.add_argument("--seconds", type=int, default=1200, help="most that a suite may take")
    p.add_argument("suites", nargs="*", default=SUITES)
    args = p.parse_args()
    work = args.work.resolve()
    prepare(args.checkout, work, args.python)
    process, dev = start(args.arcus, work)
    passed = failed = 0
    try:
        config = configuration(args.checkout, work, dev)
        env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(work / "marvin"), args.packages]),
                   PYTHONWARNINGS="ignore")
        subprocess.run([args.python, work / "marvin/marvin/deployDataCenter.py", "-i", config], env=env, check=True,
                       stdout=subprocess.DEVNULL)
        for suite in args.suites or SUITES:
            command = [args.python, "-c", NOSE, "--with-marvin", f"--marvin-config={config}", "-s", "-a",
                       "tags=advanced,required_hardware=false", "--zone=Sandbox-simulator", "--hypervisor=simulator",
                       f"{suite}.py"]
            log = work / f"{suite}.log"
            try:
                with open(log, "w") as out:
                    subprocess.run(command, cwd=work / "integration/smoke", env=env, stdout=out, stderr=out,
                                   timeout=args.seconds)
            except subprocess.TimeoutExpired:
                print(f"{suite}: took longer than {args.seconds} s")
                failed += 1
            for name, status in re.findall(r"TestName: (\S+) \| Status : (\w+)", log.read_text(errors="replace")):
                print(f"{suite}: {name}: {status}", flush=True)
                passed, failed = passed + (status == "SUCCESS"), failed + (status != "SUCCESS")
    finally:
        process.terminate()
        process.wait(30)
    print(f"upstream: {passed} passed, {failed} failed; their words are in {work}/logs")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
