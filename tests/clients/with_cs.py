"""The VM life cycle through `cs`, unmodified."""
import sys
import time

from cs import CloudStack, CloudStackApiException


def main(endpoint, key, secret):
    api = CloudStack(endpoint=endpoint, key=key, secret=secret, timeout=60, poll_interval=0.1)
    zone = api.listZones(fetch_list=False)["zone"][0]
    template = api.listTemplates(templatefilter="featured", zoneid=zone["id"])["template"][0]
    offering = api.listServiceOfferings(name="bench.tiny")["serviceoffering"][0]
    network = api.listNetworks(zoneid=zone["id"])["network"][0]
    vm = api.deployVirtualMachine(zoneid=zone["id"], templateid=template["id"], serviceofferingid=offering["id"],
                                  networkids=network["id"], name="cs-vm", displayname="through cs",
                                  fetch_result=True)["virtualmachine"]
    assert vm["state"] == "Running", vm
    assert vm["nic"][0]["ipaddress"], vm
    assert vm["hypervisor"] == "Simulator" and vm["zonename"] == zone["name"], vm
    listed = api.listVirtualMachines(id=vm["id"])["virtualmachine"]
    assert len(listed) == 1 and listed[0]["name"] == "cs-vm", listed
    try:
        api.deployVirtualMachine(zoneid=zone["id"], templateid=template["id"], serviceofferingid=offering["id"],
                                 networkids=network["id"], name="cs-vm", fetch_result=True)
        raise AssertionError("two virtual machines of one name in a network")
    except CloudStackApiException as e:
        assert e.error["errorcode"] == 431, e.error
    assert api.stopVirtualMachine(id=vm["id"], fetch_result=True)["virtualmachine"]["state"] == "Stopped"
    assert api.updateVirtualMachine(id=vm["id"], displayname="renamed")["virtualmachine"]["displayname"] == "renamed"
    assert api.startVirtualMachine(id=vm["id"], fetch_result=True)["virtualmachine"]["state"] == "Running"
    assert api.rebootVirtualMachine(id=vm["id"], fetch_result=True)["virtualmachine"]["state"] == "Running"
    gone = api.destroyVirtualMachine(id=vm["id"], expunge=True, fetch_result=True)["virtualmachine"]
    assert gone["state"] in ("Expunging", "Destroyed"), gone
    assert not api.listVirtualMachines(id=vm["id"]).get("virtualmachine"), "an expunged machine is still listed"
    vm = api.deployVirtualMachine(zoneid=zone["id"], templateid=template["id"], serviceofferingid=offering["id"],
                                  networkids=network["id"], startvm=False, fetch_result=True)["virtualmachine"]
    assert vm["state"] == "Stopped", vm
    assert api.destroyVirtualMachine(id=vm["id"], fetch_result=True)["virtualmachine"]["state"] == "Destroyed"
    assert api.recoverVirtualMachine(id=vm["id"])["virtualmachine"]["state"] == "Stopped"
    api.destroyVirtualMachine(id=vm["id"], fetch_result=True)
    assert api.expungeVirtualMachine(id=vm["id"], fetch_result=True)["success"] in (True, "true")
    events = api.listEvents(type="VM.CREATE", pagesize=20, page=1)
    end = time.monotonic() + 10
    while not events.get("event") and time.monotonic() < end:
        events = api.listEvents(type="VM.CREATE", pagesize=20, page=1)
    assert events["event"], "no VM.CREATE event"


main(*sys.argv[1:4])
