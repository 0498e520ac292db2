package engine

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func archive(t *testing.T, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, header := range headers {
		content := []byte("content")
		if header.Typeflag == tar.TypeReg || header.Typeflag == 0 {
			header.Size = int64(len(content))
		}
		if err := writer.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if header.Size > 0 {
			writer.Write(content)
		}
	}
	writer.Close()
	return &buffer
}

func TestAnAbsoluteNameIsUnpackedBelowTheRootAndItsDirectoriesAreMade(t *testing.T) {
	root := t.TempDir()
	if err := extract(root, "/", archive(t, tar.Header{Name: "/complement/ca/ca.crt", Mode: 0o777})); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(root, "complement/ca/ca.crt"))
	if err != nil || info.Mode().Perm() != 0o777 || info.Size() != 7 {
		t.Fatalf("%v %v", info, err)
	}
}

func TestNoNameAndNoLinkLeadsOutOfTheRoot(t *testing.T) {
	outside := t.TempDir()
	root := filepath.Join(outside, "root")
	os.Mkdir(root, 0o755)
	if err := extract(root, "/a", archive(t, tar.Header{Name: "../../../b/file", Mode: 0o644})); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "a/b/file")); err != nil {
		t.Fatalf("dots should count from the directory: %v", err)
	}
	os.Symlink(outside, filepath.Join(root, "link"))
	if err := extract(root, "/", archive(t, tar.Header{Name: "link/file", Mode: 0o644})); err == nil {
		t.Fatal("a link led out")
	}
	if _, err := os.Stat(filepath.Join(outside, "file")); err == nil {
		t.Fatal("there is a file outside")
	}
}

func TestADirectoryIsNotReplacedByAFile(t *testing.T) {
	root := t.TempDir()
	os.Mkdir(filepath.Join(root, "dir"), 0o755)
	var fault *Error
	if err := extract(root, "/", archive(t, tar.Header{Name: "dir", Mode: 0o644})); !errors.As(err, &fault) || fault.Kind != BadRequest {
		t.Fatalf("%v", err)
	}
	if err := extract(root, "/", archive(t, tar.Header{Name: "device", Typeflag: tar.TypeChar})); !errors.As(err, &fault) || fault.Kind != Unsupported {
		t.Fatalf("%v", err)
	}
	if err := extract(root, "/", bytes.NewBufferString("no archive, but longer than nothing at all")); !errors.As(err, &fault) {
		t.Fatalf("%v", err)
	}
}

func TestFiltersWantEveryLabel(t *testing.T) {
	labels := map[string]string{"pkg": "csapi", "context": "a.b"}
	for _, test := range []struct {
		filter Filter
		want   bool
	}{
		{nil, true}, {Filter{"pkg"}, true}, {Filter{"pkg=csapi", "context"}, true},
		{Filter{"pkg=fed"}, false}, {Filter{"pkg", "other"}, false}, {Filter{"pkg="}, false},
	} {
		if test.filter.accepts(labels) != test.want {
			t.Errorf("%v", test.filter)
		}
	}
}

func TestACopyIsACopyAndImagesKeepTheirOwn(t *testing.T) {
	e, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	os.WriteFile(filepath.Join(tree, "file"), []byte("old"), 0o600)
	config := ImageConfig{Entrypoint: []string{"/run"}}
	if _, err := e.AddImage("base", config, map[string]string{"a": "image", "b": "image"}, tree); err != nil {
		t.Fatal(err)
	}
	container, err := e.CreateContainer(ContainerSpec{Image: "base:latest", Labels: map[string]string{"b": "own"}})
	if err != nil {
		t.Fatal(err)
	}
	if container.Labels["a"] != "image" || container.Labels["b"] != "own" {
		t.Fatalf("%v", container.Labels)
	}
	os.WriteFile(filepath.Join(container.tree(), "file"), []byte("new"), 0o600)
	committed, err := e.Commit(container.ID, "next:tag", map[string]string{"c": "commit"})
	if err != nil {
		t.Fatal(err)
	}
	if committed.Labels["a"] != "image" || committed.Labels["b"] != "own" || committed.Labels["c"] != "commit" {
		t.Fatalf("%v", committed.Labels)
	}
	base, _ := e.Image("base")
	for file, want := range map[string]string{base.tree(): "old", committed.tree(): "new"} {
		if got, _ := os.ReadFile(filepath.Join(file, "file")); string(got) != want {
			t.Errorf("%s: %s", file, got)
		}
	}
	if _, err := e.CreateContainer(ContainerSpec{Image: "base", Name: container.Name}); err == nil {
		t.Fatal("a name was given twice")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(e.Dir()); !os.IsNotExist(err) {
		t.Fatalf("files are left: %v", err)
	}
}
