package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"complement-tests/internal/engine"
	"complement-tests/internal/sandbox"
)

// createRequest is what is read of a container's creation.
type createRequest struct {
	Image      string
	Env        []string
	Labels     map[string]string
	Cmd        []string
	Entrypoint []string
	HostConfig struct {
		PublishAllPorts bool
		PortBindings    map[string]any
		ExtraHosts      []string
		Binds           []string
		Mounts          []struct {
			Type, Source, Target string
			ReadOnly             bool
		}
		CapAdd   []string
		NanoCpus int64
		Memory   int64
	}
	NetworkingConfig struct {
		EndpointsConfig map[string]struct{ Aliases []string }
	}
}

// spec turns the request into the engine's terms. Limits that cannot be kept are warnings, as with Docker; what would
// make another container of it is refused.
func (c *createRequest) spec(name string) (spec engine.ContainerSpec, warnings []string, err error) {
	unsupported := func(what string) error {
		return &engine.Error{Kind: engine.Unsupported, Message: what + " not supported"}
	}
	switch {
	case len(c.Cmd) > 0 || len(c.Entrypoint) > 0:
		return spec, nil, unsupported("a program other than the image's is")
	case len(c.HostConfig.PortBindings) > 0:
		return spec, nil, unsupported("fixed ports are")
	case len(c.HostConfig.Binds) > 0:
		return spec, nil, unsupported("binds (use mounts) are")
	case len(c.NetworkingConfig.EndpointsConfig) > 1:
		return spec, nil, unsupported("more than one network is")
	}
	spec = engine.ContainerSpec{
		Name: name, Image: c.Image, Env: c.Env, Labels: c.Labels,
		ExtraHosts: c.HostConfig.ExtraHosts, PublishAllPorts: c.HostConfig.PublishAllPorts,
	}
	for network, endpoint := range c.NetworkingConfig.EndpointsConfig {
		spec.Network, spec.Aliases = network, endpoint.Aliases
	}
	for _, mount := range c.HostConfig.Mounts {
		if mount.Type != "bind" {
			return spec, nil, unsupported("mounts of type " + mount.Type + " are")
		}
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: mount.Source, Target: mount.Target, ReadOnly: mount.ReadOnly})
	}
	warnings = []string{} // never null
	if c.HostConfig.NanoCpus != 0 || c.HostConfig.Memory != 0 {
		warnings = append(warnings, "limits on processors and memory are not enforced")
	}
	return spec, warnings, nil
}

func (s *Server) createContainer(w http.ResponseWriter, r *http.Request) error {
	var request createRequest
	if err := read(r, &request); err != nil {
		return err
	}
	spec, warnings, err := request.spec(r.URL.Query().Get("name"))
	if err != nil {
		return err
	}
	container, err := s.engine.CreateContainer(spec)
	if err != nil {
		return err
	}
	reply(w, http.StatusCreated, map[string]any{"Id": container.ID, "Warnings": warnings})
	return nil
}

func (s *Server) listContainers(w http.ResponseWriter, r *http.Request) error {
	filter, err := labelFilter(r)
	if err != nil {
		return err
	}
	list := []map[string]any{}
	for _, container := range s.engine.Containers(filter, truth(r, "all")) {
		list = append(list, map[string]any{
			"Id": container.ID, "Names": []string{"/" + container.Name}, "ImageID": "sha256:" + container.ImageID,
			"Labels": container.Labels, "State": container.State().Status,
		})
	}
	reply(w, http.StatusOK, list)
	return nil
}

type portBinding struct{ HostIp, HostPort string }

func (s *Server) inspectContainer(w http.ResponseWriter, r *http.Request) error {
	container, err := s.engine.Container(r.PathValue("id"))
	if err != nil {
		return err
	}
	state := container.State()
	ports := map[string][]portBinding{}
	for port, host := range state.Ports {
		ports[fmt.Sprintf("%d/tcp", port)] = []portBinding{{"127.0.0.1", strconv.Itoa(int(host))}}
	}
	networks := map[string]any{}
	if name := container.NetworkName(); name != "" {
		networks[name] = map[string]any{"IPAddress": container.Address().String()}
	}
	reply(w, http.StatusOK, map[string]any{
		"Id": container.ID, "Name": "/" + container.Name, "Image": "sha256:" + container.ImageID,
		"State": map[string]any{
			"Status": state.Status, "Running": state.Running(), "Paused": state.Status == engine.Paused,
			"Pid": state.Pid, "ExitCode": state.ExitCode,
		},
		"Config": map[string]any{
			"Labels": container.Labels, "Env": container.Env(), "Entrypoint": container.Config().Entrypoint,
		},
		"NetworkSettings": map[string]any{"Ports": ports, "Networks": networks},
	})
	return nil
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	if tail := query.Get("tail"); tail != "" && tail != "all" || truth(r, "follow") || truth(r, "timestamps") {
		return &engine.Error{Kind: engine.Unsupported, Message: "logs are served whole, and as they are now"}
	}
	if _, err := s.engine.Container(r.PathValue("id")); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
	return s.engine.Logs(r.PathValue("id"), w, truth(r, "stdout"), truth(r, "stderr"))
}

func (s *Server) extract(w http.ResponseWriter, r *http.Request) error {
	at := r.URL.Query().Get("path")
	if at == "" {
		return badRequest("path is missing")
	}
	if err := s.engine.Extract(r.PathValue("id"), at, r.Body); err != nil {
		return err
	}
	reply(w, http.StatusOK, nil)
	return nil
}

func (s *Server) start(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Start(r.PathValue("id")))
}

func (s *Server) stop(w http.ResponseWriter, r *http.Request) error {
	timeout := 10 * time.Second
	if text := r.URL.Query().Get("t"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 0 {
			return badRequest("t is not a number of seconds: " + text)
		}
		timeout = time.Duration(seconds) * time.Second
	}
	return done(w, s.engine.Stop(r.PathValue("id"), timeout))
}

var signals = map[string]syscall.Signal{
	"": syscall.SIGKILL, "KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP,
	"QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "ABRT": syscall.SIGABRT,
}

func (s *Server) kill(w http.ResponseWriter, r *http.Request) error {
	name := r.URL.Query().Get("signal")
	signal, known := signals[strings.TrimPrefix(strings.ToUpper(name), "SIG")]
	if !known {
		return badRequest("no signal is called " + name)
	}
	return done(w, s.engine.Kill(r.PathValue("id"), signal))
}

func (s *Server) pause(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Pause(r.PathValue("id")))
}

func (s *Server) unpause(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Unpause(r.PathValue("id")))
}

func (s *Server) removeContainer(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.RemoveContainer(r.PathValue("id"), truth(r, "force")))
}

// done answers 204 unless there is an error.
func done(w http.ResponseWriter, err error) error {
	if err == nil {
		reply(w, http.StatusNoContent, nil)
	}
	return err
}
