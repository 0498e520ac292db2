package engine

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"complement-tests/internal/network"
)

// Network is a network with its name and labels.
type Network struct {
	ID, Name string
	Labels   map[string]string

	net   *network.Network
	order int
}

// CreateNetwork makes a network. Containers find each other in it by name and alias.
func (e *Engine) CreateNetwork(name string, labels map[string]string) (*Network, error) {
	if name == "" {
		return nil, fail(BadRequest, "a network needs a name")
	}
	made := &Network{ID: newID(), Name: name, Labels: labels}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := e.network(name); err == nil {
		return nil, fail(Conflict, "network with name %s already exists", name)
	}
	var err error
	made.net, err = network.New(func(asked string) (netip.Addr, bool) { return e.resolve(made, asked) })
	if err != nil {
		return nil, err
	}
	made.order = e.next()
	e.networks[made.ID] = made
	return made, nil
}

// network finds a network by id or name; the caller holds the lock.
func (e *Engine) network(name string) (*Network, error) {
	if found, ok := e.networks[name]; ok {
		return found, nil
	}
	for _, each := range e.networks {
		if each.Name == name {
			return each, nil
		}
	}
	return nil, fail(NotFound, "network %s not found", name)
}

// Networks lists networks, oldest first.
func (e *Engine) Networks(filter Filter) []*Network {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*Network
	for each := range maps.Values(e.networks) {
		if filter.accepts(each.Labels) {
			list = append(list, each)
		}
	}
	slices.SortFunc(list, func(a, b *Network) int { return cmp.Compare(a.order, b.order) })
	return list
}

// RemoveNetwork removes a network in which no container runs. Containers that do not run lose it: they cannot be
// started any more.
func (e *Engine) RemoveNetwork(name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	found, err := e.network(name)
	if err != nil {
		return err
	}
	for _, container := range e.containers {
		if container.network == found && container.State().Running() {
			return fail(Conflict, "network %s has a running container: %s", found.Name, container.Name)
		}
	}
	delete(e.networks, found.ID)
	return found.net.Close()
}

// resolve answers a container's question for a name of its network.
func (e *Engine) resolve(in *Network, name string) (netip.Addr, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, container := range e.containers {
		if container.network != in || !container.State().Running() {
			continue
		}
		if container.Name == name || container.ID[:12] == name || slices.Contains(container.spec.Aliases, name) {
			return container.address, true
		}
	}
	return netip.Addr{}, false
}
