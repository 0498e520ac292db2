package suite

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"complement-tests/internal/scratch"
)

// Package is one package of tests, compiled.
type Package struct {
	// Name is the import path below its module.
	Name string
	// Binary is the file to run.
	Binary string
}

// keptBuilds is how many compiled suites stay in the cache: those that were used last.
const keptBuilds = 4

// Build compiles the tests of packages, as seen from a module, and keeps them below a cache directory: the next time
// nothing is compiled if the module and the compiler are the same. The packages stay there until release is called. The
// error is [Unfetched] if the source is not to be had.
func Build(ctx context.Context, module string, patterns []string, cache string) (packages []Package, release func(), err error) {
	if err := fetch(ctx, module); err != nil {
		return nil, nil, err
	}
	list := append([]string{"list", "-f",
		`{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Module.Path}}{{end}}`}, patterns...)
	output, err := goCommand(ctx, module, list...)
	if err != nil {
		return nil, nil, err
	}
	key, err := buildKey(ctx, module, patterns)
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(cache, key)
	for line := range strings.Lines(output) {
		importPath, modulePath, _ := strings.Cut(strings.TrimSpace(line), " ")
		packages = append(packages, Package{
			Name:   strings.TrimPrefix(importPath, modulePath+"/"),
			Binary: filepath.Join(dir, path.Base(importPath)+".test"),
		})
	}
	if len(packages) == 0 {
		return nil, nil, fmt.Errorf("no tests in %s", strings.Join(patterns, " "))
	}
	release, err = scratch.Hold(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := compile(ctx, module, patterns, dir); err != nil {
			return nil, nil, err
		}
		release, err = scratch.Hold(dir)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := scratch.Prune(cache, keptBuilds); err != nil {
		release()
		return nil, nil, err
	}
	return packages, release, nil
}

// compile compiles beside the place and then moves there, so that what is there is always whole.
func compile(ctx context.Context, module string, patterns []string, dir string) error {
	making, err := scratch.New(filepath.Dir(dir)+".making", "making-")
	if err != nil {
		return err
	}
	if _, err := goCommand(ctx, module, append([]string{"test", "-c", "-o", making.Path + "/"}, patterns...)...); err != nil {
		return errors.Join(err, making.Remove())
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return errors.Join(err, making.Remove())
	}
	if err := making.Keep(dir); err != nil {
		if _, missing := os.Stat(dir); missing != nil {
			return errors.Join(err, making.Remove())
		}
		return making.Remove() // another run was first
	}
	return nil
}

// buildKey names what the compiled tests depend on.
func buildKey(ctx context.Context, module string, patterns []string) (string, error) {
	// The modules as resolved, with what replaces them, come in by go list -m.
	modules, err := goCommand(ctx, module, "list", "-m", "all")
	if err != nil {
		return "", err
	}
	env, err := goCommand(ctx, module, "env", "GOVERSION", "GOFLAGS", "GOOS", "GOARCH", "CGO_ENABLED")
	if err != nil {
		return "", err
	}
	// Clones share what they compile, unless it depends on files beside the module.
	place := ""
	if strings.Contains(modules, "=>") || slices.ContainsFunc(patterns, func(p string) bool { return strings.HasPrefix(p, ".") }) {
		place = module
	}
	sum := sha256.Sum256([]byte(place + "\n" + modules + env + strings.Join(patterns, " ")))
	return hex.EncodeToString(sum[:8]), nil
}

// goError is a go command that failed.
type goError struct {
	command string
	said    string // on its standard error
	cause   error
}

func (e *goError) Error() string { return fmt.Sprintf("go %s: %v\n%s", e.command, e.cause, e.said) }
func (e *goError) Unwrap() error { return e.cause }

// goCommand runs go; its output is returned also when it fails. Flags, build tags and workspaces that the user is set up
// with do not count here: a tag may drop tests. (An empty GOFLAGS would let one stand that was set by go env -w.)
func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GOFLAGS=-tags=", "GOWORK=off")
	var said strings.Builder
	command.Stderr = &said
	output, err := command.Output()
	if err != nil {
		err = &goError{command: strings.Join(args[:min(2, len(args))], " "), said: said.String(), cause: err}
	}
	return string(output), err
}
