package engine

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"complement-tests/internal/sandbox"
)

// ImageConfig is what an image says about its containers. The JSON form is what the shim reads from a file.
type ImageConfig struct {
	// Entrypoint is the program that a container runs, with its arguments.
	Entrypoint []string `json:"entrypoint"`
	// Env is KEY=VALUE; a container's own come after and win.
	Env []string `json:"env"`
	// Ports are TCP ports that are forwarded when all are to be published.
	Ports []uint16 `json:"ports"`
	// Mounts are host paths that every container sees, such as a large program that need not be copied.
	Mounts []sandbox.Mount `json:"mounts"`
}

// Image is an image. Only its tag can change: a newer image can take it over.
type Image struct {
	// ID is 64 hexadecimal digits, without "sha256:".
	ID string
	// Tag is "name:tag".
	Tag    string
	Labels map[string]string
	Config ImageConfig

	dir   string
	order int
}

func (i *Image) tree() string { return filepath.Join(i.dir, "root") }

// AddImage makes an image from a copy of a directory tree.
func (e *Engine) AddImage(tag string, config ImageConfig, labels map[string]string, tree string) (*Image, error) {
	if len(config.Entrypoint) == 0 {
		return nil, fail(BadRequest, "image %s: no entrypoint", tag)
	}
	image := &Image{ID: newID(), Tag: withTag(tag), Labels: labels, Config: config}
	var err error
	if image.dir, err = e.dir("images", image.ID); err != nil {
		return nil, err
	}
	if err = os.Mkdir(image.tree(), 0o755); err == nil {
		err = copyTree(tree, image.tree())
	}
	if err != nil {
		os.RemoveAll(image.dir)
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, other := range e.images {
		if other.Tag == image.Tag {
			other.Tag = "" // the newest image has the name
		}
	}
	image.order = e.next()
	e.images[image.ID] = image
	return image, nil
}

func withTag(name string) string {
	if name != "" && !strings.Contains(name[strings.LastIndex(name, "/")+1:], ":") {
		name += ":latest"
	}
	return name
}

// Image finds an image by its id, with or without "sha256:", or by its name.
func (e *Engine) Image(name string) (*Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.image(name)
}

func (e *Engine) image(name string) (*Image, error) {
	if image, found := e.images[strings.TrimPrefix(name, "sha256:")]; found {
		return image, nil
	}
	for _, image := range e.images {
		if image.Tag == withTag(name) && name != "" {
			return image, nil
		}
	}
	return nil, fail(NotFound, "No such image: %s", name)
}

// Images lists images, oldest first.
func (e *Engine) Images(filter Filter) []Image {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []Image
	for image := range maps.Values(e.images) {
		if filter.accepts(image.Labels) {
			list = append(list, *image)
		}
	}
	slices.SortFunc(list, func(a, b Image) int { return cmp.Compare(a.order, b.order) })
	return list
}

// RemoveImage forgets an image. Containers made from it have their own copy and go on.
func (e *Engine) RemoveImage(name string) (*Image, error) {
	e.mu.Lock()
	image, err := e.image(name)
	if err == nil {
		delete(e.images, image.ID)
	}
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return image, os.RemoveAll(image.dir)
}
