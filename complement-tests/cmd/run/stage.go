package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"complement-tests/internal/api"
	"complement-tests/internal/engine"
	"complement-tests/internal/sandbox"
	"complement-tests/internal/scratch"
)

// imageName is what the tests know the server by.
const imageName = "vatra"

// stage is what the tests run on: an engine with the image, served on a socket, in a directory of this run's own.
type stage struct {
	dir    *scratch.Dir
	engine *engine.Engine
	stop   context.CancelFunc
	served chan error
}

// newStage prepares all of it. The binary is copied first, so that a build during the run does not change it.
func newStage(o options) (s *stage, err error) {
	s = &stage{served: make(chan error, 1)}
	begun := s // an error's return sets s to nil
	if s.dir, err = scratch.New(os.TempDir(), "complement-run-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, begun.close())
		}
	}()
	if s.engine, err = engine.New(""); err != nil {
		return nil, err
	}
	binary := filepath.Join(s.dir.Path, "vatra")
	if err := copyFile(o.binary, binary); err != nil {
		return nil, fmt.Errorf("the server is not there; build it first: %w", err)
	}
	tree := filepath.Join(s.dir.Path, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return nil, err
	}
	if err := copyFile(filepath.Join(o.home, "image", "entry.sh"), filepath.Join(tree, "entry.sh")); err != nil {
		return nil, err
	}
	config := engine.ImageConfig{
		Entrypoint: []string{"/entry.sh"},
		Env:        []string{"PATH=/opt/vatra:/usr/sbin:/usr/bin:/sbin:/bin"},
		Ports:      []uint16{8008, 8448},
		Mounts:     []sandbox.Mount{{Source: binary, Target: "/opt/vatra/vatra", ReadOnly: true}},
	}
	if _, err := s.engine.AddImage(imageName, config, nil, tree); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { s.served <- api.New(s.engine).Listen(ctx, s.socket(), 0) }()
	return s, nil
}

func (s *stage) socket() string { return filepath.Join(s.dir.Path, "docker.sock") }

// close ends all that runs and removes all files of the run.
func (s *stage) close() error {
	var faults []error
	if s.stop != nil {
		s.stop()
		faults = append(faults, <-s.served)
	}
	if s.engine != nil {
		faults = append(faults, s.engine.Close())
	}
	return errors.Join(append(faults, s.dir.Remove())...)
}

// env is the environment of the tests: ours, without what would lead them to another engine.
func (s *stage) env(quick bool) []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "DOCKER_") || strings.HasPrefix(entry, "TMPDIR=") ||
			strings.HasPrefix(entry, "COMPLEMENT_BASE_IMAGE") || strings.HasPrefix(entry, "COMPLEMENT_ENABLE_DIRTY_RUNS=")
	})
	env = append(env, "DOCKER_HOST=unix://"+s.socket(), "COMPLEMENT_BASE_IMAGE="+imageName)
	if quick {
		env = append(env, "COMPLEMENT_ENABLE_DIRTY_RUNS=1")
	}
	return env
}

// requirements says what is missing on this machine.
func requirements() error {
	if os.Geteuid() != 0 {
		return errors.New("root is needed, to give each server a network of its own")
	}
	for _, tool := range []string{"ip", "openssl", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing; complement-tests/setup.sh installs what is needed on Debian", tool)
		}
	}
	return nil
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
