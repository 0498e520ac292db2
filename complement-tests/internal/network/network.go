// Package network makes the networks that containers live in: one bridge each, with a private subnet, names, and ports
// of containers forwarded from 127.0.0.1. It needs root and the ip command (iproute2).
//
// Nothing here leaves the machine: a network has no route to anywhere, and only the host's own address on the bridge
// is there beside the containers.
package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
)

// gateway is the host's number in every network; containers come after it.
const (
	gateway   = 1
	firstHost = 2
	lastHost  = 254
)

// Network is one bridge with its subnet and its name server.
type Network struct {
	slot  *slot
	names *nameServer

	mu    sync.Mutex
	used  map[byte]bool
	veths int
}

// New makes a network with a subnet of its own. resolve answers the containers' questions for names; names it does not
// know do not exist.
func New(resolve func(name string) (netip.Addr, bool)) (*Network, error) {
	slot, err := takeSlot()
	if err != nil {
		return nil, err
	}
	bridge := slot.bridge()
	err = ip(
		fmt.Sprintf("link add %s address %s type bridge forward_delay 0 mcast_snooping 0", bridge, slot.mac(gateway)),
		fmt.Sprintf("addr add %s/24 dev %s", slot.address(gateway), bridge),
		fmt.Sprintf("link set %s up", bridge),
	)
	if err == nil {
		var names *nameServer
		if names, err = serveNames(slot.address(gateway), resolve); err == nil {
			return &Network{slot: slot, names: names, used: map[byte]bool{}}, nil
		}
	}
	_ = ip("link del " + bridge)
	slot.release()
	return nil, err
}

// Close removes the network. Interfaces of containers that still run are cut off.
func (n *Network) Close() error {
	n.names.close()
	err := ip("link del " + n.slot.bridge())
	n.slot.release()
	return err
}

// Gateway is the host's address in the network, where containers reach what the host listens on. It is also where
// their name server is.
func (n *Network) Gateway() netip.Addr { return n.slot.address(gateway) }

// Reserve takes an address, the lowest that is free.
func (n *Network) Reserve() (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for host := byte(firstHost); host <= lastHost; host++ {
		if !n.used[host] {
			n.used[host] = true
			return n.slot.address(host), nil
		}
	}
	return netip.Addr{}, errors.New("the network has no address left")
}

// Release gives an address back.
func (n *Network) Release(address netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.used, address.As4()[3])
}

// Attach puts an interface eth0 into the network namespace of a process and connects it to the bridge. The address is
// only used to derive a hardware address: configuring it is for the process itself. It returns the name of the host's
// end, for Detach.
func (n *Network) Attach(pid int, address netip.Addr) (string, error) {
	n.mu.Lock()
	n.veths++
	name := fmt.Sprintf("%sv%d", n.slot.bridge(), n.veths)
	n.mu.Unlock()
	err := ip(
		fmt.Sprintf("link add %s type veth peer name eth0 address %s netns %d", name, n.slot.mac(address.As4()[3]), pid),
		fmt.Sprintf("link set %s master %s up", name, n.slot.bridge()),
	)
	return name, err
}

// Detach removes an interface that Attach made. The kernel does the same, a little later, when the namespace ends; so
// an interface that is gone is no error.
func Detach(name string) { _ = ip("link del " + name) }

// ip runs commands of iproute2 in one process.
func ip(commands ...string) error {
	command := exec.Command("ip", "-batch", "-")
	command.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(commands, "; "), err, strings.TrimSpace(string(output)))
	}
	return nil
}
