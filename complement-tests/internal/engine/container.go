package engine

import (
	"cmp"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"complement-tests/internal/network"
	"complement-tests/internal/sandbox"
)

// ContainerSpec is what a container is made from.
type ContainerSpec struct {
	// Name must be free; empty makes one up.
	Name string
	// Image is an image's name or id.
	Image string
	// Env is KEY=VALUE.
	Env    []string
	Labels map[string]string
	// Network is the one network it is in, by name or id; Aliases are further names of it there.
	Network string
	Aliases []string
	// ExtraHosts are lines for its hosts file, "name:address", where the address host-gateway stands for the host.
	ExtraHosts []string
	Mounts     []sandbox.Mount
	// PublishAllPorts forwards a port of 127.0.0.1 to each port that the image names.
	PublishAllPorts bool
}

// Status is the state of a container in one word of Docker's.
type Status string

// The states.
const (
	Created Status = "created"
	Running Status = "running"
	Paused  Status = "paused"
	Exited  Status = "exited"
)

// State is what a container is doing at one moment.
type State struct {
	Status   Status
	Pid      int // 0 when there is no process
	ExitCode int
	// Ports are the forwarded ports: of the container, and on 127.0.0.1.
	Ports map[uint16]uint16
}

// Running is true as well of a paused container.
func (s State) Running() bool { return s.Status == Running || s.Status == Paused }

// Container is one container.
type Container struct {
	ID, Name string
	// ImageID is the image it was made from.
	ImageID string
	// Labels are the image's and its own.
	Labels map[string]string

	spec    ContainerSpec
	config  ImageConfig
	dir     string
	order   int
	network *Network // nil: none but loopback
	address netip.Addr

	life     sync.Mutex // held while it is being started, stopped, committed or removed
	process  *sandbox.Process
	ended    chan struct{} // closed when what process left is tidied up
	forwards map[uint16]*network.Forward
	removed  bool

	mu    sync.Mutex // guards state; never held for long
	state State
}

// State returns what the container is doing.
func (c *Container) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *Container) setState(state State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = state
}

// Env is the whole environment: the image's, then the container's own.
func (c *Container) Env() []string { return append(slices.Clone(c.config.Env), c.spec.Env...) }

// Config is the configuration of the image it was made from.
func (c *Container) Config() ImageConfig { return c.config }

// NetworkName is the name of its network, or "".
func (c *Container) NetworkName() string {
	if c.network == nil {
		return ""
	}
	return c.network.Name
}

// Address is its address there.
func (c *Container) Address() netip.Addr { return c.address }

func (c *Container) tree() string    { return filepath.Join(c.dir, "root") }
func (c *Container) logFile() string { return filepath.Join(c.dir, "log") }

// CreateContainer makes a container, with a copy of its image's tree, and does not start it.
func (e *Engine) CreateContainer(spec ContainerSpec) (*Container, error) {
	container, image, err := e.register(spec)
	if err != nil {
		return nil, err
	}
	if container.dir, err = e.dir("containers", container.ID); err == nil {
		if err = os.Mkdir(container.tree(), 0o755); err == nil {
			err = copyTree(image.tree(), container.tree())
		}
	}
	container.life.Unlock()
	if err != nil {
		_ = e.RemoveContainer(container.ID, true)
		return nil, err
	}
	return container, nil
}

// register takes the container's name and address. It returns it with its life locked.
func (e *Engine) register(spec ContainerSpec) (*Container, *Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	image, err := e.image(spec.Image)
	if err != nil {
		return nil, nil, err
	}
	container := &Container{
		ID: newID(), Name: spec.Name, ImageID: image.ID, Labels: map[string]string{},
		spec: spec, config: image.Config, state: State{Status: Created},
	}
	if container.Name == "" {
		container.Name = container.ID[:12]
	}
	maps.Copy(container.Labels, image.Labels)
	maps.Copy(container.Labels, spec.Labels)
	if _, err := e.container(container.Name); err == nil {
		return nil, nil, fail(Conflict, "The container name %q is already in use", container.Name)
	}
	if spec.Network != "" {
		if container.network, err = e.network(spec.Network); err != nil {
			return nil, nil, err
		}
		if container.address, err = container.network.net.Reserve(); err != nil {
			return nil, nil, err
		}
	}
	container.order = e.next()
	container.life.Lock()
	e.containers[container.ID] = container
	return container, image, nil
}

// Container finds a container by id or name.
func (e *Engine) Container(name string) (*Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.container(name)
}

func (e *Engine) container(name string) (*Container, error) {
	if found, ok := e.containers[name]; ok {
		return found, nil
	}
	name = strings.TrimPrefix(name, "/")
	for _, each := range e.containers {
		if each.Name == name || len(name) >= 12 && strings.HasPrefix(each.ID, name) {
			return each, nil
		}
	}
	return nil, fail(NotFound, "No such container: %s", name)
}

// Containers lists containers, oldest first: those that run, or all.
func (e *Engine) Containers(filter Filter, all bool) []*Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*Container
	for each := range maps.Values(e.containers) {
		if filter.accepts(each.Labels) && (all || each.State().Running()) {
			list = append(list, each)
		}
	}
	slices.SortFunc(list, func(a, b *Container) int { return cmp.Compare(a.order, b.order) })
	return list
}

// Extract unpacks a tar stream into the container's tree, below a directory.
func (e *Engine) Extract(name, at string, stream io.Reader) error {
	container, err := e.Container(name)
	if err != nil {
		return err
	}
	container.life.Lock()
	defer container.life.Unlock()
	return extract(container.tree(), at, stream)
}

// Commit makes an image from the container's tree as it is. The image has the container's labels and the given ones.
// A container that runs is paused meanwhile.
func (e *Engine) Commit(name, tag string, labels map[string]string) (*Image, error) {
	container, err := e.Container(name)
	if err != nil {
		return nil, err
	}
	container.life.Lock()
	defer container.life.Unlock()
	if container.State().Status == Running {
		if err := container.pause(); err != nil {
			return nil, err
		}
		defer container.unpause()
	}
	all := maps.Clone(container.Labels)
	maps.Copy(all, labels)
	return e.AddImage(tag, container.config, all, container.tree())
}
