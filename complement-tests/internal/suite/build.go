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
	"strings"
)

// Package is one package of tests, compiled.
type Package struct {
	// Name is the import path below its module.
	Name string
	// Binary is the file to run.
	Binary string
}

// Build compiles the tests of packages, as seen from a module, and keeps them below a cache directory: the next time
// nothing is compiled if the module, the compiler and its flags are the same.
func Build(ctx context.Context, module string, patterns []string, cache string) ([]Package, error) {
	list := append([]string{"list", "-f",
		`{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Module.Path}}{{end}}`}, patterns...)
	output, err := goCommand(ctx, module, list...)
	if err != nil {
		return nil, err
	}
	key, err := buildKey(ctx, module, patterns)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, key)
	var packages []Package
	for line := range strings.Lines(output) {
		importPath, modulePath, _ := strings.Cut(strings.TrimSpace(line), " ")
		packages = append(packages, Package{
			Name:   strings.TrimPrefix(importPath, modulePath+"/"),
			Binary: filepath.Join(dir, path.Base(importPath)+".test"),
		})
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("no tests in %s", strings.Join(patterns, " "))
	}
	if _, err := os.Stat(dir); err == nil {
		return packages, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// Compiled beside its place and then moved there, so that what is there is always whole.
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	making, err := os.MkdirTemp(cache, "making-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(making)
	if _, err := goCommand(ctx, module, append([]string{"test", "-c", "-o", making + "/"}, patterns...)...); err != nil {
		return nil, err
	}
	if err := os.Rename(making, dir); err != nil {
		if _, missing := os.Stat(dir); missing != nil {
			return nil, err
		} // else another run was first
	}
	return packages, nil
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
	sum := sha256.Sum256([]byte(module + "\n" + modules + env + strings.Join(patterns, " ")))
	return hex.EncodeToString(sum[:8]), nil
}

func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	var said strings.Builder
	command.Stderr = &said
	output, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, said.String())
	}
	return string(output), nil
}
