package suite

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestClonesShareACompiledSuiteThatDependsOnNothingBesideIt(t *testing.T) {
	key := func(mod, pattern string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o644); err != nil {
			t.Fatal(err)
		}
		key, err := buildKey(context.Background(), dir, []string{pattern})
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	other := t.TempDir()
	os.WriteFile(filepath.Join(other, "go.mod"), []byte("module example.org/a\n"), 0o644)
	plain, replaced := "module m\n\ngo 1.25.0\n", "module m\n\ngo 1.25.0\n\nrequire example.org/a v1.0.0\n\nreplace example.org/a => "+other+"\n"
	if key(plain, "example.org/a/...") != key(plain, "example.org/a/...") {
		t.Error("two clones of one suite compile it twice")
	}
	if key(plain, "./...") == key(plain, "./...") {
		t.Error("two modules' own tests are taken for the same")
	}
	if key(replaced, "example.org/a/...") == key(replaced, "example.org/a/...") {
		t.Error("what is replaced by a folder may differ from clone to clone")
	}
	if key(plain, "example.org/a/...") == key(plain, "example.org/b/...") {
		t.Error("other packages are taken for the same")
	}
}
