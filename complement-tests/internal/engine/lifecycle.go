package engine

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"complement-tests/internal/network"
	"complement-tests/internal/sandbox"
	"complement-tests/internal/stdcopy"
)

// Start starts a container that does not run. It is no error if it runs.
func (e *Engine) Start(name string) error {
	return e.with(name, func(c *Container) error {
		if c.State().Running() {
			return nil
		}
		return e.start(c)
	})
}

// Stop asks a container to end with SIGTERM, and after the timeout ends it. It is no error if it does not run.
func (e *Engine) Stop(name string, timeout time.Duration) error {
	return e.with(name, func(c *Container) error { return c.stop(timeout) })
}

// Kill sends a signal to the container's program. After SIGKILL it returns when the program is gone.
func (e *Engine) Kill(name string, signal syscall.Signal) error {
	return e.with(name, func(c *Container) error {
		if !c.State().Running() {
			return fail(Conflict, "Container %s is not running", c.ID)
		}
		err := c.process.Signal(signal)
		if err == nil && signal == syscall.SIGKILL {
			c.await()
		}
		return err
	})
}

// Pause freezes the container's processes: connections stay, and nothing answers.
func (e *Engine) Pause(name string) error {
	return e.with(name, func(c *Container) error {
		if c.State().Status != Running {
			return fail(Conflict, "Container %s is not running", c.ID)
		}
		return c.pause()
	})
}

// Unpause lets a paused container go on.
func (e *Engine) Unpause(name string) error {
	return e.with(name, func(c *Container) error {
		if c.State().Status != Paused {
			return fail(Conflict, "Container %s is not paused", c.ID)
		}
		return c.unpause()
	})
}

// RemoveContainer removes a container and its files. One that runs is removed only by force.
func (e *Engine) RemoveContainer(name string, force bool) error {
	return e.with(name, func(c *Container) error {
		if c.State().Running() {
			if !force {
				return fail(Conflict, "container %s is running: stop it first", c.ID)
			}
			if err := c.process.Signal(syscall.SIGKILL); err != nil {
				return err
			}
			c.await()
		}
		c.removed = true
		e.mu.Lock()
		delete(e.containers, c.ID)
		e.mu.Unlock()
		if c.network != nil {
			c.network.net.Release(c.address)
		}
		if c.dir == "" {
			return nil // it was never finished
		}
		return os.RemoveAll(c.dir)
	})
}

// with runs one step of a container's life; steps of one container never overlap.
func (e *Engine) with(name string, step func(*Container) error) error {
	container, err := e.Container(name)
	if err != nil {
		return err
	}
	container.life.Lock()
	defer container.life.Unlock()
	if container.removed {
		return fail(NotFound, "No such container: %s", name)
	}
	return step(container)
}

func (e *Engine) start(c *Container) error {
	if err := c.writeNames(); err != nil {
		return err
	}
	file, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	log := stdcopy.NewLog(file)
	spec := sandbox.Spec{
		Root: c.tree(), Hostname: c.ID[:12], Env: c.Env(), Args: c.config.Entrypoint,
		Mounts: append(append([]sandbox.Mount{}, c.config.Mounts...), c.spec.Mounts...),
	}
	var link string
	attach := func(int) error { return nil }
	if c.network != nil {
		spec.Address = netip.PrefixFrom(c.address, 24).String()
		attach = func(pid int) (err error) {
			link, err = c.network.net.Attach(pid, c.address)
			return err
		}
	}
	process, err := sandbox.Start(spec, attach, log.Stream(stdcopy.Stdout), log.Stream(stdcopy.Stderr))
	if err != nil {
		file.Close()
		if link != "" {
			network.Detach(link)
		}
		return fmt.Errorf("container %s does not start: %w", c.Name, err)
	}
	c.process = process
	state := State{Status: Running, Pid: process.Pid}
	if state.Ports, err = c.publish(); err != nil {
		_ = process.Signal(syscall.SIGKILL)
	}
	c.setState(state)
	ended := make(chan struct{})
	go c.watch(process, file, link, ended)
	c.ended = ended
	if err != nil {
		c.await()
	}
	return err
}

// watch tidies up when the program has ended, for whatever reason.
func (c *Container) watch(process *sandbox.Process, log *os.File, link string, ended chan<- struct{}) {
	<-process.Done()
	for _, forward := range c.forwards {
		forward.Close()
	}
	if link != "" {
		network.Detach(link)
	}
	log.Close()
	c.setState(State{Status: Exited, ExitCode: process.ExitCode()})
	close(ended)
}

// await returns once the program has ended and all is tidied up.
func (c *Container) await() { <-c.ended }

func (c *Container) stop(timeout time.Duration) error {
	state := c.State()
	if !state.Running() {
		return nil
	}
	if state.Status == Paused {
		if err := c.unpause(); err != nil {
			return err
		}
	}
	if err := c.process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-time.After(timeout):
	}
	err := c.process.Signal(syscall.SIGKILL)
	c.await()
	return err
}

func (c *Container) pause() error {
	if err := c.process.SignalAll(syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Second); !c.process.Stopped(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			_ = c.process.SignalAll(syscall.SIGCONT)
			return fmt.Errorf("container %s does not stop running", c.Name)
		}
	}
	c.turn(Running, Paused)
	return nil
}

func (c *Container) unpause() error {
	if err := c.process.SignalAll(syscall.SIGCONT); err != nil {
		return err
	}
	c.turn(Paused, Running)
	return nil
}

// turn changes the status unless the program ended meanwhile.
func (c *Container) turn(from, to Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Status == from {
		c.state.Status = to
	}
}

// publish opens the forwarded ports.
func (c *Container) publish() (map[uint16]uint16, error) {
	c.forwards = map[uint16]*network.Forward{}
	ports := map[uint16]uint16{}
	if !c.spec.PublishAllPorts || c.network == nil {
		return ports, nil
	}
	for _, port := range c.config.Ports {
		forward, err := network.NewForward(netip.AddrPortFrom(c.address, port))
		if err != nil {
			return ports, err
		}
		c.forwards[port] = forward
		ports[port] = forward.Port
	}
	return ports, nil
}

// writeNames writes what the program needs to look up names.
func (c *Container) writeNames() error {
	hosts := "127.0.0.1 localhost\n"
	resolv := ""
	if c.network != nil {
		gateway := c.network.net.Gateway().String()
		hosts += c.address.String() + " " + c.ID[:12] + "\n"
		resolv = "nameserver " + gateway + "\noptions timeout:1 attempts:2\n"
		for _, line := range c.spec.ExtraHosts {
			name, address, found := strings.Cut(line, ":")
			if !found {
				return fail(BadRequest, "extra host %q is not name:address", line)
			}
			if address == "host-gateway" {
				address = gateway
			}
			hosts += address + " " + name + "\n"
		}
	}
	files := map[string]string{
		"hosts": hosts, "resolv.conf": resolv, "hostname": c.ID[:12] + "\n", "nsswitch.conf": "hosts: files dns\n",
	}
	etc := filepath.Join(c.tree(), "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
