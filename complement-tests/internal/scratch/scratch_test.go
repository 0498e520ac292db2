package scratch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func mustNew(t *testing.T, base, prefix string) *Dir {
	t.Helper()
	dir, err := New(base, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWhatTheDeadLeftIsSweptAndWhatTheLivingHaveIsNot(t *testing.T) {
	base := t.TempDir()
	dead, living, other := mustNew(t, base, "a-"), mustNew(t, base, "a-"), mustNew(t, base, "b-")
	for _, dir := range []*Dir{dead, other} {
		dir.lock.Close() // as the kernel does when a process is killed
	}
	unlocked, old := filepath.Join(base, "a-1-new"), filepath.Join(base, "a-1-old")
	for _, path := range []string{unlocked, old} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-2 * making)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	third := mustNew(t, base, "a-")
	for path, want := range map[string]bool{
		dead.Path: false, living.Path: true, other.Path: true, third.Path: true, unlocked: true, old: false,
	} {
		if there(path) != want {
			t.Errorf("%s: there is %v, want %v", path, !want, want)
		}
	}
	if err := living.Remove(); err != nil || there(living.Path) {
		t.Errorf("not removed: %v", err)
	}
}

func TestWhatIsKeptIsNotSwept(t *testing.T) {
	base := t.TempDir()
	dir, kept := mustNew(t, base, "making-"), filepath.Join(base, "kept")
	if err := dir.Keep(kept); err != nil {
		t.Fatal(err)
	}
	mustNew(t, base, "making-")
	if there(dir.Path) || !there(kept) || there(filepath.Join(kept, lockName)) {
		t.Fatal("it did not come to its place")
	}
}

func TestTheNewestAndWhatIsHeldOutlivePruning(t *testing.T) {
	base := t.TempDir()
	now := time.Now()
	for age, name := range []string{"newest", "newer", "old", "held", "oldest"} {
		path, when := filepath.Join(base, name), now.Add(-time.Duration(age+1)*time.Hour)
		if err := errors.Join(os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, "file"), nil, 0o644), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	// Held by one who does not use it, so that it stays old.
	release, err := Hold(filepath.Join(base, "held"))
	if err != nil {
		t.Fatal(err)
	}
	past := now.Add(-10 * time.Hour)
	os.Chtimes(filepath.Join(base, "held"), past, past)
	if err := Prune(base, 2); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"newest": true, "newer": true, "old": false, "held": true, "oldest": false} {
		if there(filepath.Join(base, name)) != want {
			t.Errorf("%s: want there: %v", name, want)
		}
	}
	release()
	if err := Prune(base, 2); err != nil || there(filepath.Join(base, "held")) {
		t.Errorf("what was let go of stays: %v", err)
	}
	if _, err := Hold(filepath.Join(base, "held")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("held what is gone: %v", err)
	}
	release, err = Hold(filepath.Join(base, "newer"))
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := Prune(base, 1); err != nil || !there(filepath.Join(base, "newer")) || there(filepath.Join(base, "newest")) {
		t.Errorf("use does not make it new: %v", err)
	}
}
