"""A network of namespaces that can be cut: each has an address on a common bridge, and another one that this process always reaches."""

import os
import subprocess


def ip(*words: str):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Net:
    """Namespaces 1 to `count`: 10.77.OWN.N on the bridge, 10.(100 + N).OWN.1 for their clients; OWN tells those from the nets of other
    processes."""

    def __init__(self, count: int):
        self.tag, self.count, self.own = f"vt{os.getpid() % 10_000}", count, os.getpid() % 250
        self.common, self.ours = f"10.77.{self.own}.0/24", f"10.77.{self.own}.254"
        self.bridge = f"{self.tag}b"
        self.cut: set[int] = set()
        try:
            ip("link", "add", self.bridge, "type", "bridge")
            ip("address", "add", f"{self.ours}/24", "dev", self.bridge)
            ip("link", "set", self.bridge, "up")
            for number in range(1, count + 1):
                self.namespace(number)
        except BaseException:
            self.close()
            raise

    def namespace(self, number: int):
        name = self.name(number)
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        for outer, inner, address in (
            (self.port(number), "common", f"{self.address(number)}/24"),
            (f"{self.tag}c{number}", "clients", f"{self.client_address(number)}/24"),
        ):
            ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
            ip("-n", name, "address", "add", address, "dev", inner)
            ip("-n", name, "link", "set", inner, "up")
            ip("link", "set", outer, "up")
        ip("link", "set", self.port(number), "master", self.bridge)
        ip("address", "add", f"10.{100 + number}.{self.own}.2/24", "dev", f"{self.tag}c{number}")

    def address(self, number: int) -> str:
        return f"10.77.{self.own}.{number}"

    def client_address(self, number: int) -> str:
        return f"10.{100 + number}.{self.own}.1"

    def name(self, number: int) -> str:
        return f"{self.tag}n{number}"

    def port(self, number: int) -> str:
        return f"{self.tag}p{number}"

    def isolate(self, numbers: set[int]):
        """Each of these reaches nobody; the rest reach each other."""
        for number in range(1, self.count + 1):
            if number in numbers and number not in self.cut:
                ip("link", "set", self.port(number), "nomaster")
            if number not in numbers and number in self.cut:
                ip("link", "set", self.port(number), "master", self.bridge)
        self.cut = set(numbers)

    def close(self):
        for number in range(1, self.count + 1):
            subprocess.run(["ip", "netns", "delete", self.name(number)], capture_output=True)
            for link in (self.port(number), f"{self.tag}c{number}"):
                subprocess.run(["ip", "link", "delete", link], capture_output=True)
        subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True)
