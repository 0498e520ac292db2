// Shim speaks the part of the Docker Engine API that tests of servers use, on a unix socket, and needs no Docker: each
// container is a process in namespaces of its own.
//
//	shim -socket /run/shim.sock -image vatra.json
//
// and then, for any program that takes a Docker engine from its environment:
//
//	DOCKER_HOST=unix:///run/shim.sock program
//
// An image file is JSON: {"name": "vatra", "root": "tree/", "entrypoint": ["/entry.sh"], "env": ["PATH=/usr/bin:/bin"],
// "ports": [8008, 8448], "mounts": [{"Source": "/host/path", "Target": "/path", "ReadOnly": true}]}. A root without
// /usr has the host's lent to it, read-only. It needs root and iproute2. SIGINT or SIGTERM ends it and all it runs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"complement-tests/internal/api"
	"complement-tests/internal/engine"
	"complement-tests/internal/sandbox"
)

type images []string

func (i *images) String() string         { return fmt.Sprint(*i) }
func (i *images) Set(value string) error { *i = append(*i, value); return nil }

func main() {
	sandbox.Main()
	var files images
	socket := flag.String("socket", "", "path of the unix socket to serve on")
	state := flag.String("state", "", "directory for images and containers (default: in memory if there is room)")
	idle := flag.Duration("idle", time.Hour, "end when nobody has asked for anything for this long; 0: never")
	flag.Var(&files, "image", "file that describes an image; may be given again")
	flag.Parse()
	if *socket == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*socket, *state, *idle, files); err != nil {
		log.Fatalf("shim: %v", err)
	}
}

func run(socket, state string, idle time.Duration, files []string) (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	e, err := engine.New(state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	for _, file := range files {
		if err := addImage(e, file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return api.New(e).Listen(ctx, socket, idle)
}

func addImage(e *engine.Engine, file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var image struct {
		Name, Root string
		engine.ImageConfig
	}
	if err := json.Unmarshal(content, &image); err != nil {
		return err
	}
	if !filepath.IsAbs(image.Root) {
		image.Root = filepath.Join(filepath.Dir(file), image.Root)
	}
	_, err = e.AddImage(image.Name, image.ImageConfig, nil, image.Root)
	return err
}
