// Package engine keeps images, containers and networks: what a container engine does, as far as tests of servers need
// it, and without one.
//
// An image is a directory tree with a little configuration. A container is a copy of its image's tree and a program
// that runs in a sandbox on it; committing a container makes its tree an image. All state is in memory and in one
// directory, and is gone after [Engine.Close]. What a killed engine left behind, the next one clears away.
package engine

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"complement-tests/internal/network"
	"complement-tests/internal/scratch"
)

// Engine is safe for concurrent use.
type Engine struct {
	state *scratch.Dir

	mu         sync.Mutex
	images     map[string]*Image
	containers map[string]*Container
	networks   map[string]*Network
	order      int // counts what is made, so that lists have the order of making
}

// New returns an engine that keeps its files in a new directory below base; an empty base picks a place in memory if
// there is room, and else the directory for temporary files.
func New(base string) (*Engine, error) {
	if base == "" {
		base = defaultBase()
	}
	state, err := scratch.New(base, prefix)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if err := network.Sweep(); err != nil {
		return nil, errors.Join(fmt.Errorf("engine: what killed runs left: %w", err), state.Remove())
	}
	return &Engine{
		state: state, images: map[string]*Image{}, containers: map[string]*Container{}, networks: map[string]*Network{},
	}, nil
}

// Dir is where the engine keeps its files.
func (e *Engine) Dir() string { return e.state.Path }

// Close ends every container and removes everything.
func (e *Engine) Close() error {
	var faults []error
	for _, container := range e.Containers(nil, true) {
		faults = append(faults, e.RemoveContainer(container.ID, true))
	}
	for _, network := range e.Networks(nil) {
		faults = append(faults, e.RemoveNetwork(network.ID))
	}
	return errors.Join(append(faults, e.state.Remove())...)
}

// newID returns an id as Docker's: 64 hexadecimal digits.
func newID() string {
	id := make([]byte, 32)
	rand.Read(id) // never fails
	return hex.EncodeToString(id)
}

func (e *Engine) next() int {
	e.order++
	return e.order
}

// dir makes a directory for one image or container.
func (e *Engine) dir(kind, id string) (string, error) {
	path := filepath.Join(e.state.Path, kind, id[:16])
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", fmt.Errorf("engine: %w", err)
	}
	return path, nil
}
