"""The VM life cycle through apache-libcloud's CloudStack driver, unmodified."""
import sys
import urllib.parse

from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider


def main(endpoint, key, secret):
    url = urllib.parse.urlparse(endpoint)
    driver = get_driver(Provider.CLOUDSTACK)(key=key, secret=secret, secure=url.scheme == "https", host=url.hostname,
                                             port=url.port, path=url.path)
    driver.async_poll_frequency = 0.1
    location = driver.list_locations()[0]
    image = driver.list_images(location)[0]
    size = next(s for s in driver.list_sizes(location) if s.name == "bench.tiny")
    network = driver.ex_list_networks()[0]
    node = driver.create_node(name="libcloud-vm", size=size, image=image, location=location, networks=[network],
                              ex_start_vm=True)  # its default is a stopped machine
    assert node.state == NodeState.RUNNING, node
    nodes = [n for n in driver.list_nodes() if n.id == node.id]
    assert len(nodes) == 1 and nodes[0].private_ips, nodes
    assert driver.ex_stop(node) in ("Stopped", "stopped"), "stop"
    assert driver.ex_start(node) in ("Running", "running"), "start"
    assert driver.reboot_node(node)
    driver.ex_list_public_ips()
    driver.ex_list_port_forwarding_rules()
    driver.ex_list_ip_forwarding_rules()
    driver.list_volumes()
    driver.list_key_pairs()
    driver.ex_list_disk_offerings()
    driver.ex_limits()
    assert driver.destroy_node(node, ex_expunge=True)
    assert node.id not in [n.id for n in driver.list_nodes()]


main(*sys.argv[1:4])
